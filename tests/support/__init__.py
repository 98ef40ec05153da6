"""The real things that tests use: Docker, sshd, PostgreSQL, Chromium, the installed wheel."""
