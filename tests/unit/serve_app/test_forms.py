"""Forms: what a careful client sends, and what a careless or hostile one does."""

from __future__ import annotations

import time

import httpx
import pytest
from starlette.datastructures import UploadFile

from serve_app.errors import ServiceError
from serve_app.forms import MAX_PARTS, parse_form

HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'


def test_what_a_client_sends_is_read_as_it_was():
    content = b"\r\n--y\r\n\x00\xff--x" * 3
    request = httpx.Request(
        "POST",
        "http://localhost",
        files=[("files", ("größe.dcm", content, "a/b")), ("files", ("b", b""))],
        data={"indication": 'Cough "since"\r\nMay, 38 °C', "prior": ""},
    )
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    form = parse_form(request.read(), boundary)
    assert form["indication"] == 'Cough "since"\r\nMay, 38 °C'
    assert form["prior"] == ""
    first, second = (item for item in form.getlist("files") if isinstance(item, UploadFile))
    assert (first.file.read(), first.size, first.content_type) == (content, len(content), "a/b")
    assert (second.file.read(), second.filename) == (b"", "b")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        HEAD + b"no end",
        b"--xyz\r\n\r\n--x--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--",
        b"--x\r\nno head\r\n--x--",
        b"--x\r\nA: " + b"a" * 9000 + b"\r\n\r\n1\r\n--x--",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"a" * 2**21 + b"\r\n--x--",
    ],
)
def test_what_is_no_form(body):
    with pytest.raises(ServiceError, match="bad_form"):
        parse_form(body, b"x")


def test_the_number_of_parts_is_limited():
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    assert len(parse_form(part * MAX_PARTS + b"--x--", b"x").multi_items()) == MAX_PARTS
    for count in (MAX_PARTS + 1, 10**6):
        with pytest.raises(ServiceError, match="too_many_parts"):
            parse_form(part * count + b"--x--", b"x")


@pytest.mark.parametrize("pattern", [b"\r\n--" + b"x" * 19 + b"y", b"\r", b"\r\n-", b"--"])
def test_no_file_takes_long(pattern):
    """Check patterns for which a parser in Python takes a step each."""
    content = pattern * ((32 << 20) // len(pattern))
    boundary = b"x" * 20
    body = HEAD.replace(b"--x", b"--" + boundary) + content + b"\r\n--" + boundary + b"--\r\n"
    started = time.process_time()
    form = parse_form(body, boundary)
    assert time.process_time() - started < 1
    uploaded = form["files"]
    assert isinstance(uploaded, UploadFile)
    assert uploaded.size == len(content)
