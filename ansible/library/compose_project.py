"""The documentation of the task compose_project: `ansible-doc -M ansible/library compose_project`.

Ansible expects the documentation of an action plugin in a module of the same name.  The implementation is in
action_plugins/compose_project.py, and the arguments are declared in `runner.host.arguments`.
"""

DOCUMENTATION = r"""
module: compose_project
short_description: Brings a Docker Compose project up or down on a host
description:
  - Goes through the phases of an action in one command on the host, and ends where one of them fails.
  - Needs no Python on the host, but Docker with its Compose plugin, C(flock), C(timeout), C(tar) and C(sha256sum).
  - Runs over the connections C(ssh) and C(local).
options:
  action:
    description:
      - C(up) prepares, builds, pulls, brings the project up, and waits until its containers are well.
      - C(down) removes its containers.
      - C(halt) ends what is left of a run on the host, and reports what is there.
      - C(recover) does the same, and judges how the run would have ended.
    type: str
    required: true
    choices: [up, down, halt, recover]
  run:
    description: What is run. The inventory of daos has it as the variable C(daos).
    type: dict
    required: true
    suboptions:
      project:
        description: Compose's name of the project.
        type: str
        required: true
      delivery:
        description:
          - The file on the control node with the package to deliver, for C(up).
          - daos makes one for each run; by hand it is made from a directory, with C(python -m runner.spec.delivery).
        type: path
      id:
        description: The id of the run, which the host notes.
        type: str
        default: by-hand
      deployment:
        description: The deployment that the project belongs to. Another one's is refused, see O(run.rivals).
        type: str
        default: by-hand
      installation:
        description: The installation of daos that the project belongs to. Another one's is refused.
        type: str
        default: by-hand
      rivals:
        description: Other deployments that may have a project of this name on the host.
        type: list
        elements: str
        default: []
      settle:
        description: Seconds that a new container without a health check must stay up.
        type: float
        default: 2.0
      timeouts:
        description: Seconds that each phase may take, and C(run) for all of them. C(halt) has those of C(recover).
        type: dict
        suboptions:
          prepare: {description: Of Prepare., type: float, default: 120}
          build: {description: Of Build., type: float, default: 1800}
          pull: {description: Of Pull., type: float, default: 1800}
          up: {description: Of Up., type: float, default: 600}
          verify: {description: Of Verify., type: float, default: 300}
          down: {description: Of Down., type: float, default: 300}
          recover: {description: Of Recover and Halt., type: float, default: 12}
          run: {description: Of all phases., type: float, default: 3600}
      display:
        description:
          - What is displayed while the phases go on. C(text) is for people.
          - C(events) is for daos, which reads them, and sets this itself.
        type: str
        default: text
        choices: [text, events]
attributes:
  check_mode:
    description: Is refused.
    support: none
"""

EXAMPLES = r"""
- name: Deploy
  compose_project:
    action: up
    run: "{{ daos }}"

- name: Take down
  compose_project:
    action: down
    run:
      project: shop
"""

RETURN = r"""
reason:
  description: Why it failed, a C(FailureReason) of daos; null where it did not.
  type: str
  returned: always
containers:
  description: The containers of the project as they were last seen, by name.
  type: list
  elements: dict
  returned: always
  sample:
    - name: shop-web-1
      service: web
      image: nginx:1
      state: running
      health: healthy
      exitCode: null
      restarts: 0
      startedAt: "2026-01-31T12:00:00+00:00"
      ports: ["127.0.0.1:8080->80/tcp"]
"""
