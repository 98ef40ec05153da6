"""The database: tables, sessions, migrations, and the one module that changes a status.

Nothing here depends on GraphQL, HTTP, or Ansible.
"""
