"""Cloud Storage: the JSON API as Google's Python client uses it, over folders of this machine.

A bucket is a folder and an object a file, so that steps that run here see them; what a step has
written there without the API is an object like any other.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from email.parser import BytesParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c

from tests.cloud.answers import Answer, Refused, Request, page

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_CHUNK = 1 << 20


@dataclasses.dataclass
class _About:
    """What is known of one generation of an object besides its content."""

    generation: int
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metageneration: int = 1


@dataclasses.dataclass
class _Upload:
    """An upload in parts that is under way."""

    bucket: str
    resource: Mapping[str, Any]
    query: Mapping[str, str]
    file: Path
    size: int = 0
    answer: Answer | None = None


class Storage:
    """All buckets.

    Attributes:
        buckets: folder of the buckets, each a folder in it.

    Args:
        folder: holds the buckets and uploads under way.
        url: address of the cloud.
    """

    def __init__(self, folder: Path, url: str):
        self.buckets = folder / "buckets"
        self._uploads_folder = folder / "uploads"
        self.buckets.mkdir(parents=True, exist_ok=True)
        self._uploads_folder.mkdir(parents=True, exist_ok=True)
        self._url = url
        self._about: dict[tuple[str, str], _About] = {}
        self._sums: dict[tuple[str, int, int, int], tuple[str, str]] = {}
        self._uploads: dict[str, _Upload] = {}
        self._generation = 0
        self._lock = threading.RLock()

    def path(self, uri: str) -> Path:
        """Where the object or the prefix of an address `gs://bucket/name` lies."""
        return self.buckets / uri.removeprefix("gs://")

    def uri(self, path: Path) -> str:
        """The address of a file or folder in a bucket."""
        return f"gs://{path.relative_to(self.buckets)}"

    def create_bucket(self, name: str) -> None:
        """Makes a bucket, if it is not there."""
        (self.buckets / name).mkdir(exist_ok=True)

    def answer(self, request: Request) -> Answer:
        """Answers a request for Cloud Storage.

        Raises:
            Refused: it cannot be done.
        """
        for method, pattern, function in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                groups = [unquote(group) for group in match.groups()]
                return function(self, request, *groups)
        raise Refused(501, f"The stand-in does not know {request.method} {request.path}.")

    # Buckets

    def _list_buckets(self, request: Request) -> Answer:
        prefix = request.query.get("prefix", "")
        names = sorted(p.name for p in self.buckets.iterdir() if p.name.startswith(prefix))
        return Answer({"kind": "storage#buckets", "items": [self._show_bucket(n) for n in names]})

    def _insert_bucket(self, request: Request) -> Answer:
        name = str(request.json().get("name", ""))
        if not _BUCKET.fullmatch(name):
            raise Refused(400, f"Invalid bucket name: '{name}'")
        try:
            (self.buckets / name).mkdir()
        except FileExistsError as error:
            raise Refused(
                409,
                "Your previous request to create the named bucket succeeded and you already "
                "own it.",
            ) from error
        return Answer(self._show_bucket(name))

    def _get_bucket(self, request: Request, bucket: str) -> Answer:
        self._folder(bucket)
        return Answer(self._show_bucket(bucket))

    def _delete_bucket(self, request: Request, bucket: str) -> Answer:
        folder = self._folder(bucket)
        if any(self._names(folder)):
            raise Refused(409, "The bucket you tried to delete is not empty.")
        shutil.rmtree(folder)
        return Answer(b"", 204)

    def _show_bucket(self, name: str) -> dict[str, Any]:
        made = _text_of_seconds((self.buckets / name).stat().st_ctime)
        return {
            "kind": "storage#bucket",
            "id": name,
            "name": name,
            "selfLink": f"{self._url}/storage/v1/b/{name}",
            "projectNumber": "123456789012",
            "location": "US-CENTRAL1",
            "locationType": "region",
            "storageClass": "STANDARD",
            "timeCreated": made,
            "updated": made,
            "metageneration": "1",
            "etag": "CAE=",
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
        }

    def _folder(self, bucket: str) -> Path:
        folder = self.buckets / bucket
        if not _BUCKET.fullmatch(bucket) or not folder.is_dir():
            raise Refused(404, "The specified bucket does not exist.")
        return folder

    # Objects

    def _list(self, request: Request, bucket: str) -> Answer:
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        begin, end = query.get("startOffset", ""), query.get("endOffset", "")
        names: list[str] = []
        prefixes: set[str] = set()
        for name in self._names(self._folder(bucket), prefix):
            if not name.startswith(prefix) or name < begin or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest[: rest.index(delimiter) + len(delimiter)])
            else:
                names.append(name)
        entries = sorted([*names, *prefixes])
        size, token = int(query.get("maxResults") or 0), query.get("pageToken", "")
        chosen, following = page(entries, size, token)
        items = []
        for name in chosen:
            with contextlib.suppress(Refused):  # it went while the list was made
                items += [] if name in prefixes else [self._show(bucket, name)]
        body: dict[str, Any] = {"kind": "storage#objects", "items": items}
        if prefixes.intersection(chosen):
            body["prefixes"] = sorted(prefixes.intersection(chosen))
        if following:
            body["nextPageToken"] = following
        return Answer(body)

    def _get(self, request: Request, bucket: str, name: str) -> Answer:
        with self._lock:
            resource = self._show(bucket, name)
            self._check(request.query, bucket, name)
            asked = request.query.get("generation")
            if asked and asked != resource["generation"]:
                raise _no_object(bucket, name)
            if request.query.get("alt") != "media":
                return Answer(resource)
            data = self._file(bucket, name).read_bytes()
        headers = {
            "Content-Type": resource["contentType"],
            "X-Goog-Hash": f"crc32c={resource['crc32c']},md5={resource['md5Hash']}",
            "X-Goog-Generation": resource["generation"],
            "X-Goog-Metageneration": resource["metageneration"],
            "X-Goog-Stored-Content-Length": resource["size"],
            "ETag": resource["etag"],
        }
        return _part(data, request.headers.get("range", ""), headers)

    def _delete(self, request: Request, bucket: str, name: str) -> Answer:
        with self._lock:
            file = self._file(bucket, name)
            if not file.is_file():
                raise _no_object(bucket, name)
            self._check(request.query, bucket, name)
            file.unlink()
            self._about.pop((bucket, name), None)
            for folder in file.parents:
                if folder == self.buckets / bucket:
                    break
                try:
                    folder.rmdir()
                except OSError:
                    break
        return Answer(b"", 204)

    def _patch(self, request: Request, bucket: str, name: str) -> Answer:
        with self._lock:
            self._check(request.query, bucket, name)
            about = self._known(bucket, name)
            change = request.json()
            about.metadata = change.get("metadata") or about.metadata
            about.content_type = change.get("contentType") or about.content_type
            about.metageneration += 1
            return Answer(self._show(bucket, name))

    def _copy(
        self, request: Request, bucket: str, name: str, kind: str, other: str, target: str
    ) -> Answer:
        source = self._file(bucket, name)
        if not source.is_file():
            raise _no_object(bucket, name)
        self._folder(other)
        about = self._known(bucket, name)
        wanted = request.query.get("sourceGeneration")
        if wanted and int(wanted) != about.generation:
            raise _no_object(bucket, name)
        draft = self._draft()
        shutil.copyfile(source, draft)
        given = {"contentType": about.content_type, "metadata": dict(about.metadata)}
        found = self._store(other, target, draft, {**given, **request.json()}, request.query)
        if kind == "copyTo":
            return Answer(found)
        size = found["size"]
        rewritten = {"done": True, "objectSize": size, "totalBytesRewritten": size}
        return Answer({"kind": "storage#rewriteResponse", **rewritten, "resource": found})

    def _compose(self, request: Request, bucket: str, name: str) -> Answer:
        asked = request.json()
        sources = asked.get("sourceObjects", [])
        if not 1 <= len(sources) <= 32:
            raise Refused(400, "The number of source components provided must be 1 to 32.")
        draft = self._draft()
        with open(draft, "wb") as whole:
            for source in sources:
                file = self._file(bucket, source["name"])
                if not file.is_file():
                    raise _no_object(bucket, source["name"])
                with open(file, "rb") as part:
                    shutil.copyfileobj(part, whole)
        resource = asked.get("destination", {})
        return Answer(self._store(bucket, name, draft, resource, request.query))

    # Uploads

    def _upload(self, request: Request, bucket: str) -> Answer:
        self._folder(bucket)
        kind = request.query.get("uploadType", "media")
        content_type = request.headers.get("content-type", "")
        if kind == "resumable":
            return self._begin(request, bucket)
        if kind == "multipart":
            about, content = _two_parts(content_type, request.body)
            resource = json.loads(about[1] or b"{}")
            resource.setdefault("contentType", content[0])
            data = content[1]
        else:
            resource, data = {"contentType": content_type}, request.body
        name = resource.get("name") or request.query.get("name", "")
        draft = self._draft()
        draft.write_bytes(data)
        return Answer(self._store(bucket, name, draft, resource, request.query))

    def _begin(self, request: Request, bucket: str) -> Answer:
        resource = request.json()
        name = resource.get("name") or request.query.get("name", "")
        self._check(request.query, bucket, name)
        kind = request.headers.get("x-upload-content-type")
        resource = {"contentType": kind or "application/octet-stream", **resource, "name": name}
        identity = secrets.token_urlsafe(12)
        draft = self._draft()
        draft.touch()
        self._uploads[identity] = _Upload(bucket, resource, request.query, draft)
        place = f"/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={identity}"
        address = f"http://{request.headers['host']}{place}"
        return Answer(b"", 200, {"Location": address, "X-GUploader-UploadID": identity})

    def _go_on(self, request: Request, bucket: str) -> Answer:
        upload = self._uploads.get(request.query.get("upload_id", ""))
        if upload is None:
            raise Refused(404, "The upload is not known.")
        if upload.answer is not None:
            return upload.answer
        told = _CONTENT_RANGE.fullmatch(request.headers.get("content-range", ""))
        begin = int(told[1]) if told and told[1] else None if told else 0
        total = told[3] if told else str(len(request.body))
        if begin is not None:
            if begin > upload.size:
                raise Refused(503, f"Expected byte {upload.size}, got {begin}.")
            with open(upload.file, "r+b") as file:
                file.seek(begin)
                file.write(request.body)
            upload.size = max(upload.size, begin + len(request.body))
        if total == "*" or upload.size < int(total):
            there = {"Range": f"bytes=0-{upload.size - 1}"} if upload.size else {}
            return Answer(b"", 308, there)
        name = upload.resource["name"]
        found = self._store(bucket, name, upload.file, upload.resource, upload.query)
        upload.answer = Answer(found)
        return upload.answer

    def _abandon(self, request: Request, bucket: str) -> Answer:
        upload = self._uploads.pop(request.query.get("upload_id", ""), None)
        if upload is not None:
            upload.file.unlink(missing_ok=True)
        return Answer(b"", 499)

    def _store(
        self,
        bucket: str,
        name: str,
        draft: Path,
        resource: Mapping[str, Any],
        query: Mapping[str, str],
    ) -> dict[str, Any]:
        """Puts a file into a bucket, if the conditions hold."""
        try:
            file = self._file(bucket, name)
            crc32c, md5 = _checksums(draft)
            for key, sum_ in (("crc32c", crc32c), ("md5Hash", md5)):
                if resource.get(key) not in (None, sum_):
                    raise Refused(
                        400,
                        f'Provided {key} hash "{resource[key]}" doesn\'t match calculated '
                        f'{key} hash "{sum_}".',
                    )
            with self._lock:
                self._check(query, bucket, name)
                try:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(draft, file)
                except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                    raise Refused(
                        501, f"The stand-in cannot have {name} and objects below it."
                    ) from error
                moment = max(file.stat().st_mtime_ns // 1000, self._generation + 1)
                self._generation = moment
                os.utime(file, ns=(moment * 1000, moment * 1000))
                kind = resource.get("contentType") or "application/octet-stream"
                about = _About(moment, kind, dict(resource.get("metadata") or {}))
                self._about[bucket, name] = about
                return self._show(bucket, name)
        finally:
            draft.unlink(missing_ok=True)

    # What is there

    def _check(self, query: Mapping[str, str], bucket: str, name: str) -> None:
        """Holds a request to its conditions.

        Raises:
            Refused: one does not hold.
        """
        there = self._file(bucket, name).is_file()
        about = self._known(bucket, name) if there else _About(0, metageneration=0)
        conditions = (
            ("ifGenerationMatch", about.generation, True),
            ("ifGenerationNotMatch", about.generation, False),
            ("ifMetagenerationMatch", about.metageneration, True),
            ("ifMetagenerationNotMatch", about.metageneration, False),
        )
        for condition, value, equal in conditions:
            if condition in query and (int(query[condition]) == value) != equal:
                raise Refused(412, "At least one of the pre-conditions you specified did not hold.")

    def _known(self, bucket: str, name: str) -> _About:
        """What is known of an object that is there; of a file changed by a step, anew."""
        try:
            generation = self._file(bucket, name).stat().st_mtime_ns // 1000
        except OSError as error:
            raise _no_object(bucket, name) from error
        about = self._about.get((bucket, name))
        if about is None or about.generation != generation:
            about = self._about[bucket, name] = _About(generation)
        return about

    def _show(self, bucket: str, name: str) -> dict[str, Any]:
        file = self._file(bucket, name)
        if not file.is_file():
            raise _no_object(bucket, name)
        about = self._known(bucket, name)
        status = file.stat()
        key = (str(file), status.st_ino, status.st_mtime_ns, status.st_size)
        if key not in self._sums:
            self._sums[key] = _checksums(file)
        crc32c, md5 = self._sums[key]
        time = _text_of_seconds(status.st_mtime)
        identity = f"{bucket}/{name}/{about.generation}"
        return {
            "kind": "storage#object",
            "id": identity,
            "bucket": bucket,
            "name": name,
            "generation": str(about.generation),
            "metageneration": str(about.metageneration),
            "contentType": about.content_type,
            "size": str(status.st_size),
            "crc32c": crc32c,
            "md5Hash": md5,
            "etag": base64.b64encode(identity.encode()).decode()[-16:],
            "storageClass": "STANDARD",
            "timeCreated": time,
            "updated": time,
            "selfLink": f"{self._url}/storage/v1/b/{bucket}/o/{quote(name, '')}",
            "mediaLink": f"{self._url}/download/storage/v1/b/{bucket}/o/{quote(name, '')}"
            "?alt=media",
            **({"metadata": dict(about.metadata)} if about.metadata else {}),
        }

    def _file(self, bucket: str, name: str) -> Path:
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts) or "\0" in name:
            raise Refused(400, f"The stand-in cannot keep an object of the name {name!r}.")
        return self._folder(bucket).joinpath(*parts)

    def _names(self, folder: Path, prefix: str = "") -> Iterator[str]:
        """The objects whose names may begin so; whole folders that cannot are not looked at."""
        below = folder / prefix.rpartition("/")[0]
        for place, _, files in os.walk(below):
            for file in files:
                yield str((Path(place) / file).relative_to(folder))

    def _draft(self) -> Path:
        return self._uploads_folder / secrets.token_hex(8)

    # Several at once

    def _batch(self, request: Request) -> Answer:
        boundary = _boundary(request.headers.get("content-type", ""))
        answers = []
        for part in request.body.split(b"--" + boundary)[1:-1]:
            outer = BytesParser().parsebytes(part.lstrip(b"\r\n"))
            head, _, rest = bytes(outer.get_payload(decode=True) or b"").partition(b"\n")
            method, target, *_ = head.decode().split()
            inner = BytesParser().parsebytes(rest)
            address = urlsplit(target)
            query = {name: v[-1] for name, v in parse_qs(address.query).items()}
            headers = {name.lower(): value for name, value in inner.items()}
            body = inner.get_payload(decode=True)
            asked = Request(
                request.number, method, address.path, query, headers, bytes(body or b"").strip()
            )
            try:
                answer = self.answer(asked)
            except Refused as refused:
                answer = refused.answer("storage")
            content, kinds = answer.content()
            identity = outer.get("Content-ID", "<0>").strip("<>")
            answers.append(
                f"--answer\r\nContent-Type: application/http\r\n"
                f"Content-ID: <response-{identity}>\r\n\r\nHTTP/1.1 {answer.status} X\r\n"
                f"Content-Type: {kinds.get('Content-Type', 'application/json')}\r\n"
                f"Content-Length: {len(content)}\r\n\r\n".encode()
                + content
                + b"\r\n"
            )
        kind = {"Content-Type": "multipart/mixed; boundary=answer"}
        return Answer(b"".join(answers) + b"--answer--\r\n", 200, kind)


_OBJECT = r"/storage/v1/b/([^/]+)/o/([^/]+)"
_UPLOAD = r"/(?:upload|resumable/upload)/storage/v1/b/([^/]+)/o"
_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", "/storage/v1/b", Storage._list_buckets),
    ("POST", "/storage/v1/b", Storage._insert_bucket),
    ("GET", "/storage/v1/b/([^/]+)", Storage._get_bucket),
    ("DELETE", "/storage/v1/b/([^/]+)", Storage._delete_bucket),
    ("GET", "/storage/v1/b/([^/]+)/o", Storage._list),
    ("GET", f"(?:/download)?{_OBJECT}", Storage._get),
    ("DELETE", _OBJECT, Storage._delete),
    ("PATCH", _OBJECT, Storage._patch),
    ("POST", rf"{_OBJECT}/(copyTo|rewriteTo)/b/([^/]+)/o/([^/]+)", Storage._copy),
    ("POST", f"{_OBJECT}/compose", Storage._compose),
    ("POST", _UPLOAD, Storage._upload),
    ("PUT", _UPLOAD, Storage._go_on),
    ("DELETE", _UPLOAD, Storage._abandon),
    ("POST", "/batch/storage/v1", Storage._batch),
]


def _no_object(bucket: str, name: str) -> Refused:
    return Refused(404, f"No such object: {bucket}/{name}")


def _part(data: bytes, asked: str, headers: Mapping[str, str]) -> Answer:
    """The whole content, or the part of it that a header asks for."""
    match = _RANGE.fullmatch(asked)
    if not match or not any(match.groups()):
        return Answer(data, 200, headers)
    if match[1]:
        begin, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
    else:
        begin, end = max(0, len(data) - int(match[2])), len(data) - 1
    if begin >= len(data):
        about = {"Content-Range": f"bytes */{len(data)}"}
        raise Refused(416, f"The requested range cannot be satisfied: {asked}", headers=about)
    told = {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}
    return Answer(data[begin : end + 1], 206, {**headers, **told})


def _checksums(file: Path) -> tuple[str, str]:
    """CRC32C and MD5 of a file, as the API writes them."""
    crc32c, md5 = google_crc32c.Checksum(), hashlib.md5(usedforsecurity=False)
    with open(file, "rb") as content:
        while chunk := content.read(_CHUNK):
            crc32c.update(chunk)
            md5.update(chunk)
    return base64.b64encode(crc32c.digest()).decode(), base64.b64encode(md5.digest()).decode()


def _boundary(content_type: str) -> bytes:
    return content_type.partition("boundary=")[2].split(";")[0].strip("\"'").encode()


def _two_parts(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Content type and content of each part of a message of two."""
    parts = []
    for part in body.split(b"--" + _boundary(content_type))[1:-1]:
        head, _, rest = re.sub(rb"\r?\n\r?\n", b"\0\0", part, count=1).partition(b"\0\0")
        kind = re.search(rb"(?i)content-type:\s*([^\r\n]+)", head)
        rest = rest.removesuffix(b"\n").removesuffix(b"\r")
        parts.append((kind[1].decode().strip() if kind else "", rest))
    if len(parts) != 2:
        raise Refused(400, "A multipart upload must have two parts.")
    return parts


def _text_of_seconds(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
