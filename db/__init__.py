"""What is stored: tables, sessions, migrations and the one place that changes a status.

Nothing here knows GraphQL, HTTP or Ansible.
"""
