"""The real things that tests use: Docker, sshd, PostgreSQL, Chromium, Node.js, the installed wheel."""
