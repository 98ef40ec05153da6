"""One execution of Ansible in a process of its own."""
