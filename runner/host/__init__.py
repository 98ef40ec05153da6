"""Decides what the script on a host does next, and whether a phase has succeeded.

Ansible's process imports these modules, so they use the standard library only.
"""
