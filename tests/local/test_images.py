"""Images and what runs in their place."""

from pathlib import Path

import pytest

from ergon.local.node.images import Images, UnknownImage, command_line, repository_of


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path)


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("nvcr.io/nvidia/tritonserver:26.10-py3", "nvcr.io/nvidia/tritonserver"),
        ("rclone/rclone", "rclone/rclone"),
        ("docker.io/rclone/rclone:1.75", "rclone/rclone"),
        ("docker.io/library/traefik:v3.7@sha256:00", "traefik"),
        ("traefik@sha256:00", "traefik"),
        ("registry:5000/team/x:1", "registry:5000/team/x"),
    ],
)
def test_images_are_known_by_repository(image: str, repository: str) -> None:
    assert repository_of(image) == repository


def test_an_unknown_image_lists_the_known_ones(images: Images) -> None:
    with pytest.raises(UnknownImage, match=r"no launcher for image 'nginx'; known: .*nvcr.io/nvidia/tritonserver, python"):
        images.find("nginx:1")


@pytest.mark.parametrize(
    ("image", "command", "arguments", "line"),
    [
        ("nvcr.io/nvidia/tritonserver", [], ["tritonserver", "--x"], ["tritonserver", "--x"]),
        ("rclone/rclone", [], ["rcd"], ["rclone", "rcd"]),
        ("rclone/rclone", ["sh", "-c"], ["true"], ["sh", "-c", "true"]),
        ("traefik", [], ["--ping"], ["traefik", "--ping"]),
        ("traefik", [], ["traefik", "--ping"], ["traefik", "--ping"]),
        ("ghcr.io/ergon-dev/ergon", [], ["run"], ["ergon", "run"]),
        ("python", [], [], ["python3"]),
        ("curlimages/curl", [], ["-s", "x"], ["curl", "-s", "x"]),
        ("curlimages/curl", [], ["sh"], ["sh"]),
        ("nvcr.io/nvidia/tritonserver", [], [], []),
    ],
)
def test_commands_follow_the_images_entrypoint(
    images: Images, image: str, command: list[str], arguments: list[str], line: list[str]
) -> None:
    assert command_line(images.find(image), command, arguments) == line


def test_programs_are_written_ready_to_run(images: Images, tmp_path: Path) -> None:
    images.write_shims(tmp_path / "shims")
    triton = tmp_path / "shims" / "tritonserver" / "tritonserver"
    assert triton.stat().st_mode & 0o111
    assert triton.read_text().rstrip().endswith(f"--backend-directory={tmp_path / 'backends'}")
