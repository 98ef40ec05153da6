"""OpenSSH: keys, known hosts, and persistent connections."""
