"""What a source may say, and that nothing written becomes a path, a flag or an identity that is not its owner's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergon.store import (
    AccessDenied,
    DiskFull,
    FetchFailed,
    Source,
    SourceInvalid,
    SourceNotAllowed,
    SourceNotFound,
    StoreError,
    parse_source,
)
from ergon.store.addresses import host_refusal
from ergon.store.errors import source_error

KEYS = {"access_key_id": "AKID", "secret_access_key": "very-secret"}


def parsed(uri: str, secret: dict[str, str] | None = None, **options: bool) -> Source:
    return parse_source(uri, "1", secret, "models-reader" if secret else None, **options)


def refusal(uri: str, secret: dict[str, str] | None = None) -> str:
    with pytest.raises(StoreError) as refused:
        parsed(uri, secret)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_s3_with_a_secret() -> None:
    source = parsed("s3://models/ner/int8/3", KEYS | {"endpoint": "https://s3.example.org", "region": "eu-1"})
    assert source.remote == {
        "type": "s3",
        "provider": "Other",
        "_root": "models/ner/int8/3/",
        "env_auth": "false",
        "force_path_style": "true",
        "access_key_id": "AKID",
        "secret_access_key": "very-secret",
        "endpoint": "https://s3.example.org",
        "region": "eu-1",
    }
    assert source.secret_name == "models-reader"


@pytest.mark.parametrize("uri", ["s3://models/ner", "gs://models/ner", "https://example.org/ner"])
def test_without_a_secret_it_is_anonymous_and_never_the_nodes_identity(uri: str) -> None:
    remote = parsed(uri).remote
    assert remote is not None
    assert remote.get("env_auth", "false") == "false"
    assert not {"access_key_id", "secret_access_key", "service_account_credentials", "endpoint", "headers"} & remote.keys()


def test_google_and_azure() -> None:
    gs = parsed("gs://models/ner", {"service_account_credentials": '{"type": "service_account"}'}).remote
    assert gs == {
        "type": "google cloud storage",
        "_root": "models/ner/",
        "env_auth": "false",
        "service_account_credentials": '{"type": "service_account"}',
    }
    assert parsed("gs://models/ner").remote == {
        "type": "google cloud storage",
        "_root": "models/ner/",
        "env_auth": "false",
        "anonymous": "true",
    }
    az = parsed("az://models/ner", {"account": "acme", "key": "a2V5"}).remote
    assert az == {
        "type": "azureblob",
        "_root": "models/ner/",
        "env_auth": "false",
        "use_msi": "false",
        "account": "acme",
        "key": "a2V5",
    }


def test_a_password_goes_into_a_header_not_into_the_url() -> None:
    remote = parsed("https://example.org:8443/a/b", {"user": "u", "pass": "p@ss,word"}).remote
    assert remote == {
        "type": "http",
        "url": "https://example.org:8443",
        "_root": "a/b/",
        "headers": "Authorization,Basic dTpwQHNzLHdvcmQ=",
    }


def test_a_file_is_a_path_below_the_sources() -> None:
    source = parsed("file:///team%20a/ner/1/")
    assert (source.path, source.remote) == ("team a/ner/1", None)


@pytest.mark.parametrize(
    ("uri", "secret", "says"),
    [
        (
            "s3://m/x",
            {"acces_key_id": "a"},
            "the Secret models-reader has the key acces_key_id, but a s3 source takes access_key_id, ",
        ),
        ("s3://models/x", {"env_auth": "true"}, "has the key env_auth"),
        ("gs://models/x", {"token": "t"}, "a gs source takes service_account_credentials"),
        ("file:///x", {"user": "u"}, "a file source takes no Secret"),
        ("https://example.org/x", {"headers": "a,b"}, "a https source takes user, pass"),
        ("s3://models/x", {"access_key_id": "a"}, "needs both access_key_id and secret_access_key"),
        ("az://models/x", None, "az needs a Secret"),
        ("s3://models/x", KEYS | {"region": "x@169.254.169.254/"}, "the Secret's region is not one"),
        ("az://models/x", {"account": "169.254.169.254/", "key": "k"}, "the Secret's account is not one"),
        ("gs://models/x", {"service_account_credentials": "{"}, "is not the JSON key file of a service account"),
        ("gs://models/x", {"service_account_credentials": '{"type": "external_account"}'}, "is not the JSON key file"),
        ("ftp://example.org/x", None, "a source begins with one of s3://"),
        ("models/x", None, "a source begins with one of s3://"),
        (":local:/etc", None, "a source begins with one of s3://"),
        ("S3://models/x", None, "a source begins with one of s3://"),
        ("s3://models", None, "names a whole bucket"),
        ("s3:///x", None, "write s3://<bucket>/<path>"),
        ("s3://models:80/x", None, "write s3://<bucket>/<path>"),
        ("s3://m,env_auth=true/x", None, "write s3://<bucket>/<path>"),
        ("https://user:hunter2@example.org/x", None, "holds no user or password"),
        ("s3://key:hunter2@models/x", None, "holds no user or password"),
        ("https://example.org/x?token=hunter2", None, "holds no query"),
        ("https://example.org/x?", None, "holds no query"),
        ("https://example.org/x#y", None, "holds no query or fragment"),
        ("https://example.org:99999/x", None, "not a URI"),
        ("https://[::1/x", None, "not a URI"),
        ("https:///x", None, "write https://<host>/<path>"),
        ("file://etc/passwd", None, "with three slashes"),
        ("file:///", None, "names no directory"),
        ("s3://models/a b", None, "holds no spaces"),
        ("s3://models/a%", None, "a % stands for itself only as %25"),
        ("s3://models/%ff", None, "not UTF-8"),
        ("s3://models/" + "a" * 1025, None, "at most 1024 characters"),
        ("s3://models/x", KEYS | {"endpoint": "ftp://example.org"}, "the Secret's endpoint is not an http(s) address"),
        (
            "s3://models/x",
            KEYS | {"endpoint": "https://u:hunter2@example.org"},
            "the Secret's endpoint is not an http(s) address",
        ),
    ],
)
def test_what_a_source_cannot_be(uri: str, secret: dict[str, str] | None, says: str) -> None:
    message = refusal(uri, secret)
    assert says in message
    assert "hunter2" not in message
    with pytest.raises(SourceInvalid):
        parsed(uri, secret)


@pytest.mark.parametrize(
    "path",
    ["../etc", "a/../../etc", "%2e%2e/etc", "a/%2E%2e/b", "a/./b", "a//b", "a%2fb", "a%5cb", "a%00b", "a%0ab", "..%2f..%2fetc"],
)
@pytest.mark.parametrize("scheme", ["file:///", "s3://models/", "https://example.org/"])
def test_no_path_leads_elsewhere(scheme: str, path: str) -> None:
    with pytest.raises(SourceNotAllowed):
        parsed(scheme + path)


def test_percent_is_decoded_once() -> None:
    assert parsed("file:///a%252e%252e/b").path == "a%2e%2e/b"


@given(st.text(max_size=60))
def test_whatever_is_written_stays_below_the_sources(text: str) -> None:
    try:
        path = parsed(f"file:///{text}").path
    except StoreError:
        return
    assert path
    assert not path.startswith("/")
    assert not {"..", ".", ""} & set(path.split("/"))
    assert not any(character in path for character in "\\\0\n\r")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[::7f00:1]",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "[fd20:ce::254]",
        "[::ffff:168.63.129.16]",
        "224.0.0.1",
        "255.255.255.255",
        "localhost",
        "LOCALHOST.",
        "db.localhost",
        "kubernetes",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "metadata.google.internal",
        "metadata",
        "instance-data.ec2.internal",
    ],
)
def test_addresses_of_the_node_the_cloud_and_the_api_server_are_refused(host: str) -> None:
    with pytest.raises(SourceNotAllowed):
        parsed(f"https://{host}/models")
    with pytest.raises(SourceNotAllowed):
        parsed("s3://models/x", KEYS | {"endpoint": f"http://{host}:9000"})
    key = json.dumps({"type": "service_account", "token_uri": f"http://{host}/token"})
    with pytest.raises(SourceNotAllowed):
        parsed("gs://models/x", {"service_account_credentials": key})
    with pytest.raises(SourceNotAllowed):
        parsed("az://models/x", {"sas_url": f"https://{host}/models?sig=x"})
    assert parsed(f"https://{host}/models", allow_private_addresses=True).remote is not None


def test_the_api_servers_own_addresses_are_refused() -> None:
    assert host_refusal("10.96.0.1") is None
    assert host_refusal("10.96.0.1", ["10.96.0.1"]) == "is the Kubernetes API server"
    for written in ("10.96.0.1", "[::ffff:10.96.0.1]", "[::ffff:a60:1]", "[64:ff9b::10.96.0.1]"):
        with pytest.raises(SourceNotAllowed, match="is the Kubernetes API server"):
            parse_source(f"https://{written}/x", "1", api_server_addresses=("10.96.0.1", "fd00::1", "a-name"))


@pytest.mark.parametrize(
    "host", ["minio.minio.svc", "10.0.0.7", "models.example.org", "[2001:db8::1]", "my_store", "kubernetes.example.org"]
)
def test_stores_in_the_cluster_and_outside_are_allowed(host: str) -> None:
    assert parsed(f"https://{host}/models").remote is not None


@pytest.mark.parametrize(
    ("uri", "text", "kind", "says"),
    [
        ("s3://models/403/1", "directory not found: models/403/1", SourceNotFound, "nothing is there"),
        ("s3://models/a", "NoSuchKey: weights-401.bin", SourceNotFound, "nothing is there"),
        ("s3://models/a", "operation error S3: HeadObject, StatusCode: 403, RequestID", AccessDenied, "name a Secret"),
        ("https://example.org/a", "error listing: HTTP Error: 401 Unauthorized", AccessDenied, "name a Secret"),
        ("gs://models/a", "googleapi: Error 403: no access", AccessDenied, "name a Secret"),
        ("file:///a", "open /sources/a/1/model.py: permission denied", AccessDenied, "chmod -R a+rX"),
        ("s3://models/a", "write /models/.incoming/a: no space left on device", DiskFull, "is full"),
        ("s3://models/a", "connection reset by peer", FetchFailed, "connection reset"),
    ],
)
def test_what_rclone_says_becomes_what_to_do(uri: str, text: str, kind: type[StoreError], says: str) -> None:
    error = source_error(text, uri=uri, secret_name=None, secrets=())
    assert type(error) is kind
    assert says in str(error)
    assert ("Secret" in str(error)) == (kind is AccessDenied and not uri.startswith("file:"))


def test_secrets_show_neither_in_a_source_nor_in_errors() -> None:
    secret = KEYS | {"session_token": "tok/en+=", "endpoint": "https://s3.example.org"}
    source = parsed("s3://models/x", secret)
    assert "very-secret" not in repr(source)
    text = 'Get "https://s3.example.org/models?X-Sig=abcdef": signed with very-secret and tok/en+= or tok%2Fen%2B%3D by AKID: 403'
    message = str(source_error(text, uri=source.uri, secret_name="models-reader", secrets=source.secrets))
    for hidden in ("very-secret", "tok/en", "tok%2Fen", "abcdef", "AKID"):
        assert hidden not in message
    assert "https://s3.example.org/models" in message


def test_signatures_and_passwords_in_other_forms_are_hidden_too() -> None:
    sas = parsed("az://models/x", {"sas_url": "https://acme.blob.core.windows.net/models?sv=1&sig=abcdef%3D"})
    web = parsed("https://example.org/x", {"user": "u", "pass": "hunter2"})
    assert "sig=abcdef" not in str(source_error("no: sv=1&sig=abcdef%3D", uri=sas.uri, secret_name="s", secrets=sas.secrets))
    assert "dTpodW50ZXIy" not in str(source_error("Basic dTpodW50ZXIy", uri=web.uri, secret_name="s", secrets=web.secrets))
