"""The words of Docker 20.10 to 28 and of Compose 2.26, 2.40 and 5.6, and what they mean."""

from collections.abc import Sequence

import pytest

from db.phase import Phase
from runner.host.compose_words import Explanation, blamed, explain, registry_of, warning

IMAGES = {"db": "127.0.0.1:1/team/app:2", "web": "registry.invalid/web:1", "job": "alpine:3"}
REFUSED = 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
NO_NAME = 'Get "https://registry.invalid/v2/": dial tcp: lookup registry.invalid on 192.0.2.53:53: no such host'
DB, WEB, JOB = (
    f"Image {image} of service '{service}' could not be pulled: registry {registry}"
    for service, image, registry in (
        ("db", "127.0.0.1:1/team/app:2", "127.0.0.1:1"),
        ("web", "registry.invalid/web:1", "registry.invalid"),
        ("job", "alpine:3", "docker.io"),
    )
)
LOGIN = (
    "denied access. If the image is private, give the package a login with createPackage(registryLogins: …); "
    "a registry may also deny an image that does not exist."
)
LIMIT = (
    "limits how many images are pulled, and the limit is reached. A login may raise it: "
    "createPackage(registryLogins: …)."
)
ENDPOINT = "Error response from daemon: driver failed programming external connectivity on endpoint shop-web-1 (2724): "
RATE = "toomanyrequests: You have reached your pull rate limit. You may increase the limit by logging in"


def compose_2(service: str, words: str) -> list[str]:
    return [f" {service} Pulling ", f" {service} Error {words}", f"Error response from daemon: {words}"]


def compose_5(image: str, words: str) -> list[str]:
    daemon = f"Error response from daemon: {words}"
    return [f" Image {image} Pulling ", f" Image {image} Error {words}", daemon, daemon]


PULLS = [
    (compose_2("db", REFUSED), f"{DB} refuses the connection; see that it runs, and that the address is right."),
    (
        compose_5("127.0.0.1:1/team/app:2", REFUSED),
        f"{DB} refuses the connection; see that it runs, and that the address is right.",
    ),
    (
        # Compose 5 cancels the other pulls.
        [
            " Image registry.invalid/web:1 Pulling ",
            " Image 127.0.0.1:1/team/app:2 Interrupted ",
            *compose_5("registry.invalid/web:1", NO_NAME),
        ],
        "Image registry.invalid/web:1 of service 'web' could not be pulled: "
        "the name of registry registry.invalid cannot be resolved; see that it is right, and the DNS of the host.",
    ),
    (
        # Compose 2.26 has this of a pull that it cancels.
        [
            " db Error Cannot connect to the Docker daemon at unix:///docker.sock. Is the docker daemon running?",
            *compose_2("web", "manifest unknown"),
        ],
        f"{WEB} does not have it; see that its name and tag are right.",
    ),
    (
        [" db Error context canceled", *compose_2("web", "manifest unknown")],
        f"{WEB} does not have it; see that its name and tag are right.",
    ),
    (compose_2("web", "denied"), f"{WEB} {LOGIN}"),
    (compose_2("web", "unauthorized"), f"{WEB} {LOGIN}"),
    (compose_5("registry.invalid/web:1", "unauthorized: authentication required"), f"{WEB} {LOGIN}"),
    (
        compose_2("web", 'Get "https://registry.invalid/v2/web/manifests/1": no basic auth credentials'),
        f"{WEB} {LOGIN}",
    ),
    (compose_2("web", "denied: requested access to the resource is denied"), f"{WEB} {LOGIN}"),
    (
        compose_2(
            "job", "pull access denied for alpine, repository does not exist or may require 'docker login': denied"
        ),
        f"{JOB} {LOGIN}",
    ),
    (compose_2("job", RATE), f"{JOB} {LIMIT}"),
    (
        compose_2("web", "manifest for registry.invalid/web:1 not found: manifest unknown"),
        f"{WEB} does not have it; see that its name and tag are right.",
    ),
    (
        [
            "Error response from daemon: "
            'failed to resolve reference "registry.invalid/web:1": registry.invalid/web:1: not found'
        ],
        f"{WEB} does not have it; see that its name and tag are right.",
    ),
    (
        compose_2("web", "no matching manifest for linux/arm64/v8 in the manifest list entries"),
        WEB.replace(
            "registry registry.invalid",
            "registry registry.invalid has no image for the platform of the host; name an image that is built for it.",
        ),
    ),
    (
        compose_2("web", 'Get "https://registry.invalid/v2/": dial tcp 192.0.2.1:443: i/o timeout'),
        f"{WEB} does not answer; see that the host reaches it.",
    ),
    (
        compose_2("web", 'Get "https://registry.invalid/v2/": net/http: request canceled (Client.Timeout exceeded)'),
        f"{WEB} does not answer; see that the host reaches it.",
    ),
    (
        compose_2("web", 'Get "https://registry.invalid/v2/": net/http: TLS handshake timeout'),
        f"{WEB} does not answer; see that the host reaches it.",
    ),
    (
        compose_2("web", "tls: failed to verify certificate: x509: signed by unknown authority"),
        "Image registry.invalid/web:1 of service 'web' could not be pulled: the TLS connection to "
        "registry registry.invalid failed (tls: failed to verify certificate: x509: signed by unknown authority); the "
        "host must trust its certificate.",
    ),
    (
        compose_2("web", "http: server gave HTTP response to HTTPS client"),
        f"{WEB} does not speak TLS; add it to insecure-registries of Docker on the host, or give it a certificate.",
    ),
    (
        compose_2("web", "received unexpected HTTP status: 500 Internal Server Error"),
        "Image registry.invalid/web:1 of service 'web' could not be pulled: "
        "received unexpected HTTP status: 500 Internal Server Error.",
    ),
    ([" strange words"], "An image could not be pulled: strange words."),
    ([], "An image could not be pulled: Compose printed nothing."),
]


@pytest.mark.parametrize(("words", "sentence"), PULLS)
def test_a_failed_pull_names_the_image_its_service_and_the_cause(words: Sequence[str], sentence: str) -> None:
    assert explain(Phase.PULL, words, IMAGES) == Explanation("IMAGE_PULL_FAILED", sentence)


@pytest.mark.parametrize(("words", "sentence"), PULLS[:-2])
def test_up_may_pull_too(words: Sequence[str], sentence: str) -> None:
    lines = [" Network shop_default  Creating", *words]
    assert explain(Phase.UP, lines, IMAGES) == Explanation("IMAGE_PULL_FAILED", sentence)


def test_all_services_of_an_image_are_named() -> None:
    explanation = explain(Phase.PULL, compose_2("b", "denied"), {"a": "x/y", "b": "x/y"})
    assert explanation is not None
    assert explanation.sentence.startswith(
        "Image x/y of services 'a' and 'b' could not be pulled: registry docker.io denied"
    )


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("alpine", "docker.io"),
        ("team/app:1", "docker.io"),
        ("localhost/app", "localhost"),
        ("registry:5000/app", "registry:5000"),
        ("ghcr.io/team/app@sha256:1", "ghcr.io"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


CANNOT = ", and container shop-web-1 cannot publish it"
UNSET = 'The "X" variable is not set. Defaulting to a blank string. Give it a value in the variables of the deployment.'
STOP_CONTAINER = "stop that container, or publish another port."
STOP_PROGRAM = "stop that program, or publish another port."
FREE = "Free space on it, and run the deployment again."


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            f"{ENDPOINT}Bind for 0.0.0.0:8080 failed: port is already allocated",
            f"Port 8080 is in use by another container on the host{CANNOT}; {STOP_CONTAINER}",
        ),
        (
            f"{ENDPOINT}Bind for :::8080 failed: port is already allocated",
            f"Port 8080 is in use by another container on the host{CANNOT}; {STOP_CONTAINER}",
        ),
        (
            f"{ENDPOINT}Error starting userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use",
            f"Port 80 of address 127.0.0.1 is in use by another program on the host{CANNOT}; {STOP_PROGRAM}",
        ),
        (
            f"{ENDPOINT}Error starting userland proxy: listen udp6 [::]:53: bind: address already in use",
            f"Port 53 is in use by another program on the host{CANNOT}; {STOP_PROGRAM}",
        ),
        (
            "Error response from daemon: failed to set up container networking: driver failed programming external "
            "connectivity on endpoint shop-web-1 (27ad848692cb): failed to bind host port for "
            "0.0.0.0:8080:172.17.0.2:80/tcp: address already in use",
            f"Port 8080 is in use by another program on the host{CANNOT}; {STOP_PROGRAM}",
        ),
        (
            f"{ENDPOINT}failed to bind host port 0.0.0.0:8080/tcp: address already in use",
            f"Port 8080 is in use by another program on the host{CANNOT}; {STOP_PROGRAM}",
        ),
        (
            "Error response from daemon: Ports are not available: exposing port TCP 0.0.0.0:80 -> 127.0.0.1:0: "
            "listen tcp 0.0.0.0:80: bind: address already in use",
            f"Port 80 is in use by another program on the host; {STOP_PROGRAM}",
        ),
    ],
)
def test_a_port_in_use(line: str, sentence: str) -> None:
    words = [" Container shop-web-1  Starting", line]
    assert explain(Phase.UP, words, IMAGES) == Explanation("PORT_IN_USE", sentence)


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.PULL, Phase.BUILD, Phase.UP])
@pytest.mark.parametrize(
    "line",
    [
        "tar: page: Cannot write: No space left on device",
        "Error response from daemon: write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
        "failed to register layer: write /page: disk quota exceeded",
        "tar: page: Wrote only 6656 of 10240 bytes",
    ],
)
def test_a_full_disk(phase: Phase, line: str) -> None:
    explanation = explain(phase, [" db Pulling ", line], IMAGES, free_bytes=12_300_000)
    assert explanation == Explanation("DISK_FULL", f"The disk of the host is full, with 12.3 MB free: {line}. {FREE}")


def test_a_full_disk_of_unknown_size() -> None:
    explanation = explain(Phase.UP, ["no space left on device"])
    assert explanation == Explanation("DISK_FULL", f"The disk of the host is full: no space left on device. {FREE}")


COMMAND = "executor failed running [/bin/sh -c echo building; echo oh no >&2; exit 7]: exit code: 7"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            [
                "#5 [web 2/2] RUN echo building; echo oh no >&2; exit 7",
                "#5 0.256 building",
                f"#5 ERROR: {COMMAND}",
                "------",
                " > [web 2/2] RUN echo building; echo oh no >&2; exit 7:",
                "0.256 building",
                "0.257 oh no",
                "------",
                f"failed to solve: {COMMAND}",
            ],
            f"The image of service 'web' could not be built: {COMMAND}; its last output: oh no.",
        ),
        (  # Bake names the service only where there are several
            ["------", " > [2/2] RUN exit 7:", "0.259 oh no", "------", f"failed to solve: {COMMAND}", ""],
            f"An image could not be built: {COMMAND}; its last output: oh no.",
        ),
        (  # newer BuildKit
            [
                "------",
                " > [2/2] RUN exit 7:",
                "0.259 oh no",
                "------",
                "Dockerfile:2",
                "--------------------",
                "   1 |     FROM hello:1",
                "   2 | >>> RUN exit 7",
                "--------------------",
                'target web: failed to solve: process "/bin/sh -c exit 7" did not complete successfully: exit code: 7',
                "View build details: docker-desktop://dashboard/build/default",
            ],
            "The image of service 'web' could not be built: "
            'process "/bin/sh -c exit 7" did not complete successfully: exit code: 7; its last output: oh no.',
        ),
        (
            [
                "------",
                " > [db 2/2] COPY nothing /there:",
                "------",
                'target db: failed to solve: failed to compute cache key: "/nothing" not found: not found',
            ],
            "The image of service 'db' could not be built: \"/nothing\" not found: not found.",
        ),
        (
            [
                "------",
                " > [web internal] load metadata for 127.0.0.1:1/none:1:",
                "------",
                "failed to solve: rpc error: code = Unknown desc = failed to solve with frontend dockerfile.v0: "
                f"failed to create LLB definition: failed to do request: {REFUSED}",
            ],
            f"The image of service 'web' could not be built: failed to do request: {REFUSED}.",
        ),
        (
            ["failed to solve: alpine: pull access denied, repository does not exist or may require authorization"],
            "An image could not be built: alpine: pull access denied, repository does not exist or may require "
            "authorization. If its base image is private, give the package a login with "
            "createPackage(registryLogins: …).",
        ),
        (  # the classic builder, in color
            [
                "Step 2/3 : RUN echo building; echo oh no >&2; exit 7",
                " ---> Running in 6a8e5c457cc9",
                "building",
                "\x1b[91moh no",
                "\x1b[0mThe command '/bin/sh -c exit 7' returned a non-zero code: 7",
            ],
            "An image could not be built: The command '/bin/sh -c exit 7' returned a non-zero code: 7; "
            "its last output: oh no.",
        ),
        (
            [" ---> Running in 6a8e5c457cc9", "The command 'exit 7' returned a non-zero code: 7"],
            "An image could not be built: The command 'exit 7' returned a non-zero code: 7.",
        ),
        (
            ["#5 0.2 Cannot connect to the Docker daemon.", f"failed to solve: {COMMAND}"],
            f"An image could not be built: {COMMAND}; its last output: Cannot connect to the Docker daemon.",
        ),
        ([], "An image could not be built: the build printed nothing."),
        (
            [
                "failed to read dockerfile: open /var/lib/docker/tmp/buildkit-mount7/web.Dockerfile: "
                "no such file or directory"
            ],
            "An image could not be built: failed to read dockerfile: open web.Dockerfile: no such file or directory. "
            "Add the Dockerfile to the files of the package, or name another one with build.dockerfile.",
        ),
    ],
)
def test_a_failed_build(words: Sequence[str], sentence: str) -> None:
    assert explain(Phase.BUILD, words) == Explanation("IMAGE_BUILD_FAILED", sentence)


@pytest.mark.parametrize(
    ("built", "subject"),
    [(["web"], "The image of service 'web'"), (["db", "web"], "An image of services 'db' and 'web'")],
)
def test_a_build_that_names_no_service_is_of_one_of_those_that_were_built(built: Sequence[str], subject: str) -> None:
    explanation = explain(Phase.BUILD, ["The command 'exit 7' returned a non-zero code: 7"], built=built)
    assert explanation is not None
    assert explanation.sentence == f"{subject} could not be built: The command 'exit 7' returned a non-zero code: 7."


@pytest.mark.parametrize(
    ("phase", "line"),
    [
        (Phase.UP, "dependency failed to start: container shop-db-1 is unhealthy"),
        (
            Phase.UP,
            'Error response from daemon: OCI runtime create failed: exec: "/nonexistent": no such file or directory',
        ),
        (
            Phase.UP,
            f"{ENDPOINT}Error starting userland proxy: listen tcp4 192.0.2.9:80: bind: cannot assign requested address",
        ),
        (Phase.PREPARE, "The files could not be unpacked"),
        (
            Phase.PULL,
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        ),
        (Phase.PULL, "error during connect: Get http://%2Fvar%2Frun%2Fdocker.sock/_ping: EOF"),
        (
            Phase.BUILD,
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        ),
    ],
)
def test_words_without_a_known_cause(phase: Phase, line: str) -> None:
    assert explain(phase, [" Container shop-db-1  Error", line], IMAGES) is None


def test_a_container_is_blamed_by_its_name() -> None:
    words = [
        "dependency failed to start: container shop-db-1 is unhealthy",
        "dependency failed to start: container shop-queue-1 exited (3)",
        'service "job" didn\'t complete successfully: exit 3',
    ]
    assert blamed(words) == {"shop-db-1", "shop-queue-1"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            r'time="2026-01-01T00:00:00Z" level=warning '
            r'msg="The \"X\" variable is not set. Defaulting to a blank string."',
            UNSET,
        ),
        (
            '\x1b[33mWARN\x1b[0m[0000] The "X" variable is not set. Defaulting to a blank string. \r',
            UNSET,
        ),
        (r'time="2026-01-01T00:00:00Z" level=warning msg="a\\b\tc\x07d\u00e4" project=shop', "a\\b cdä"),
        (r'time="2026-01-01T00:00:00Z" level=warning msg="a \x41\a\\ \U0001f433\Uffffffff"', "a A\\ 🐳\ufffd"),
        ('time="2026-01-01T00:00:00Z" level=warning msg=short', "short"),
        ('time="2026-01-01T00:00:00Z" level=error msg="no warning"', None),
        (" Container shop-web-1  Started", None),
        ("web | WARN[0000] of a container", None),
    ],
)
def test_a_warning_of_compose(line: str, text: str | None) -> None:
    assert warning(line) == text
