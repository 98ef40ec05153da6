"""Takes queued runs, plays them with Ansible, and tells what happened.

What to run (`project`, `outcome`) is pure and apart from running it (`worker`, `process`, `playbook`).
"""
