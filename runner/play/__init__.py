"""One execution of Ansible in a separate process."""
