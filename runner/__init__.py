"""Claims queued runs, plays them with Ansible, and records what happens.

Computing what to run and judging how it ended (`spec`, `outcome`) are pure, and separate from running it (`worker`,
`attempt`, `play`).
"""
