"""What a demonstration keeps between runs, and what it may remove."""

from fettle import demo
from fettle.settings import Settings


def test_forgetting_removes_the_demonstration_and_keeps_the_lock(tmp_path):
    for name in ("lock", "demo.json", "serve.log"):
        (tmp_path / name).touch()
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").touch()
    demo.forget(Settings(data_dir=tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


def test_forgetting_keeps_what_no_demonstration_made(tmp_path):
    (tmp_path / "postgres").mkdir()
    demo.forget(Settings(data_dir=tmp_path))
    assert (tmp_path / "postgres").is_dir()


def test_a_plan_that_was_written_by_half_is_none(tmp_path):
    (tmp_path / "demo.json").write_text('{"began_us": 1')
    assert demo.read_plan(Settings(data_dir=tmp_path)) is None
