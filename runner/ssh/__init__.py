"""OpenSSH: keys, known hosts, and connections that are kept open."""
