import logging

import pytest
import torch

from training.command_line import choose_device, logging_to_stderr, user_errors_exit_with_2


def test_a_device_is_what_its_name_says() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("has_gpu", "device"), [(False, "cpu"), (True, "cuda")])
def test_auto_is_a_gpu_where_there_is_one(has_gpu: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device("auto") == torch.device(device)


@pytest.mark.parametrize("name", ["", "gpu", "nonsense", "CPU", "meta", "xla", "vulkan", "hpu", "cpu:x", "cuda cuda"])
def test_a_device_that_nobody_has_is_named(name: str) -> None:
    # "meta" and others are devices to torch, and would fail at the first operation.
    with pytest.raises(ValueError, match=f"there is no device '{name}': use cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:9"])
def test_a_missing_gpu_is_told_from_a_wrong_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"no GPU answers, so '{name}' cannot be used: use --device cpu"):
        choose_device(name)


def test_a_users_error_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, user_errors_exit_with_2(KeyError, ValueError):
        raise ValueError("the first line\nand  the second")
    assert stopped.value.code == 2
    assert stopped.value.__suppress_context__  # no traceback of the error behind it
    captured = capsys.readouterr()
    assert captured.err == "error: the first line and  the second\n"
    assert not captured.out


def test_our_own_errors_and_success_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    with user_errors_exit_with_2(ValueError):
        pass
    with pytest.raises(TypeError), user_errors_exit_with_2(ValueError):
        raise TypeError("a mistake of ours")
    assert capsys.readouterr().err == ""


def test_what_a_user_waits_for_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logging_to_stderr()
    logging.getLogger("training.example").info("step %d", 7)
    logging.getLogger("training.example").debug("a detail")
    captured = capsys.readouterr()
    assert "step 7" in captured.err
    assert "a detail" not in captured.err
    assert not captured.out
