"""The images of the steps, pinned by digest, so that a cache key tells what has run.

A tag can come to mean another image; every cache, ours and the clouds', has it in its keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.images import VERSION
from trainer.artifact import write_json
from trainer.errors import TryAgain, UserError

if TYPE_CHECKING:
    import requests

LOCAL = "local"
"""What is said instead of a prefix for images that the Docker engine of this machine knows."""

_OURS = re.compile(r"paper2hub/([a-z0-9-]+):([A-Za-z0-9_.-]+)")
_PINNED = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_SECONDS = 30


def pin(text: str, images: str) -> str:
    """A compiled pipeline whose steps name their images by digest.

    Args:
        text: what KFP's compiler writes; further documents of it stay as they are.
        images: the prefix of a registry, whose images have our names and the tag of this version;
            a lock file, as `write_lock` makes it; or `local`, for what the Docker engine of this
            machine has pulled or pushed.

    Raises:
        UserError: an image is not there.
        TryAgain: the registry does not answer.
    """
    first, separator, rest = text.partition("\n---\n")
    spec = yaml.safe_load(first)
    found: dict[str, str] = {}
    pinned = _replaced(spec, _finder(images), found)
    comments = "".join(f"{line}\n" for line in first.splitlines() if line.startswith("#"))
    return comments + yaml.safe_dump(pinned, sort_keys=False) + separator.lstrip("\n") + rest


def unpinned(text: str) -> list[str]:
    """The images of ours in a compiled pipeline that a tag names."""
    return sorted({match[0] for match in _OURS.finditer(text)})


def write_lock(file: str | Path, images: str) -> dict[str, str]:
    """Writes where each of our images is, by digest, so that nobody has to ask again.

    Args:
        file: what to write, JSON: `{"trainer": "PREFIX/trainer@sha256:…", …}`.
        images: the prefix of a registry, or `local`.
    """
    find, names = _finder(images), ("data", "trainer", "trainer-gpu", "trainer-tpu")
    lock = {}
    for name in names:
        try:
            lock[name] = find(name, VERSION)
        except UserError:
            if name != "trainer-gpu":  # built where there are GPUs
                raise
    write_json(file, lock)
    return lock


def _replaced(value: Any, find: Callable[[str, str], str], found: dict[str, str]) -> Any:
    """The value with each of our images in it replaced."""
    if isinstance(value, dict):
        return {key: _replaced(inner, find, found) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, find, found) for inner in value]
    match = _OURS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    if value not in found:
        found[value] = find(match[1], match[2])
    return found[value]


def _finder(images: str) -> Callable[[str, str], str]:
    """What finds an image by its name and tag."""
    if images == LOCAL:
        return _of_the_engine
    if images.endswith(".json"):
        lock = _read_lock(Path(images))

        def of_the_lock(name: str, tag: str) -> str:
            if name not in lock:
                raise UserError(f"{images} must have the image {name}; it has {', '.join(lock)}.")
            return lock[name]

        return of_the_lock
    prefix = images.rstrip("/")
    return lambda name, tag: f"{prefix}/{name}@{digest_in_registry(f'{prefix}/{name}', tag)}"


def _read_lock(file: Path) -> Mapping[str, str]:
    try:
        lock = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "it is no JSON"
        raise UserError(f"The lock of images must be a file of JSON; {file}: {what}.") from error
    right = isinstance(lock, dict) and all(
        isinstance(image, str) and _PINNED.fullmatch(image) for image in lock.values()
    )
    if not right:
        raise UserError(f"{file} must map names of images to NAME@sha256:DIGEST.")
    return dict(lock)


def _of_the_engine(name: str, tag: str) -> str:
    """An image that the engine of this machine has pulled from a registry or pushed to one."""
    import docker
    from docker.errors import DockerException, ImageNotFound

    ours = f"paper2hub/{name}:{tag}"
    try:
        client = docker.from_env()
        try:
            image = client.images.get(ours)
        finally:
            client.close()
    except ImageNotFound as error:
        raise UserError(f"The image {ours} must be here; `make images` builds it.") from error
    except DockerException as error:
        raise UserError(
            "A Docker engine must run here for --images local; none answers."
        ) from error
    known = sorted(image.attrs.get("RepoDigests") or ())
    if not known:
        raise UserError(
            f"The image {ours} must have a digest, which a registry gives it: tag and push it "
            "first, or give --images PREFIX of a registry that has it."
        )
    return str(known[0])


def digest_in_registry(image: str, tag: str) -> str:
    """The digest that a registry has for a tag, by the distribution API of OCI.

    Args:
        image: such as europe-west4-docker.pkg.dev/PROJECT/paper2hub-dev/trainer.
        tag: such as 0.1.0.

    Raises:
        UserError: there is no such image, or it may not be read.
        TryAgain: the registry does not answer.
    """
    import requests

    host, _, repository = image.partition("/")
    if "." not in host and ":" not in host:
        raise UserError(
            "--images must begin with the name of a registry, as in "
            f"europe-west4-docker.pkg.dev/PROJECT/REPOSITORY, or be local; got {image!r}."
        )
    scheme = "http" if re.match(r"(localhost|127\.0\.0\.1)(:|$)", host) else "https"
    url = f"{scheme}://{host}/v2/{repository}/manifests/{tag}"
    headers = {"Accept": ", ".join(_MEDIA_TYPES)}
    try:
        with requests.Session() as session:
            for token in _tokens(session, host):
                given = {"Authorization": f"Bearer {token}"} if token else {}
                answer = session.head(url, headers=headers | given, timeout=_SECONDS)
                if answer.status_code == 401 and not token:
                    token = _anonymous(session, answer)
                    given = {"Authorization": f"Bearer {token}"}
                    answer = session.head(url, headers=headers | given, timeout=_SECONDS)
                if answer.status_code not in (401, 403):
                    break
    except requests.RequestException as error:
        raise TryAgain(f"The registry {host} does not answer: {type(error).__name__}.") from error
    if answer.status_code in (401, 403):
        raise UserError(
            f"{image}:{tag} must be readable; {host} answers {answer.status_code}. "
            "`gcloud auth application-default login` signs you in."
        )
    if answer.status_code == 404:
        raise UserError(f"The image {image}:{tag} must be there; {host} has none of that name.")
    digest = str(answer.headers.get("Docker-Content-Digest", ""))
    if answer.status_code != 200 or not digest.startswith("sha256:"):
        raise TryAgain(f"The registry {host} answers {answer.status_code} for {image}:{tag}.")
    return digest


def _tokens(session: requests.Session, host: str) -> Iterator[str]:
    """Tokens to try: none, then, for Google's registries, that of this identity."""
    yield ""
    if not host.endswith(("pkg.dev", "gcr.io")):
        return
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    except GoogleAuthError:
        return
    yield str(credentials.token)


def _anonymous(session: requests.Session, refusal: requests.Response) -> str:
    """The token that a registry gives to everybody who asks where it says."""
    challenge = dict(re.findall(r'(\w+)="([^"]*)"', refusal.headers.get("WWW-Authenticate", "")))
    if not challenge.get("realm", "").startswith(
        ("https://", "http://127.0.0.1", "http://localhost")
    ):
        return ""
    asked = {key: challenge[key] for key in ("service", "scope") if key in challenge}
    answer = session.get(challenge["realm"], params=asked, timeout=_SECONDS)
    if answer.status_code != 200:
        return ""
    body = answer.json()
    return str(body.get("token") or body.get("access_token") or "")
