import json
import sys

import pytest

import benchmarks.advisories
from benchmarks.advisories import NoServiceError, Verdict, look_up, main, read_verdict

CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found"}
VULNERABLE = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": ""},
        {"id": "PYSEC-2", "fix_versions": [], "aliases": [], "description": ""},
    ],
}


def says(*packages: object) -> tuple[str, ...]:
    """A command that answers as pip-audit does."""
    return (sys.executable, "-c", f"print({json.dumps(json.dumps({'dependencies': packages}))})")


def test_a_package_that_the_service_does_not_know_is_not_clean() -> None:
    assert read_verdict({"dependencies": [CLEAN, UNKNOWN, VULNERABLE]}) == Verdict(
        num_audited=2,
        num_unknown=1,
        findings=("pillow 1.0: PYSEC-1, fixed in 1.1, 2.0", "pillow 1.0: PYSEC-2, fixed in no version yet"),
    )


@pytest.mark.parametrize(
    "program", ["raise SystemExit('no route to host')", "import time; time.sleep(60)", "print('No JSON')"]
)
def test_a_service_that_does_not_answer_is_told_from_one_that_finds_nothing(program: str) -> None:
    with pytest.raises(NoServiceError, match=r"no route to host|no answer within 0\.5 s|it said nothing"):
        look_up((sys.executable, "-c", program), timeout_s=0.5)


@pytest.mark.parametrize(
    ("command", "status", "strict_status", "sentence"),
    [
        (says(CLEAN), 0, 0, "pip-audit: 1 packages were looked up, 0 advisories"),
        (says(CLEAN, UNKNOWN), 0, 1, "1 packages were looked up, 0 advisories; the service does not know 1 more"),
        (says(VULNERABLE), 1, 1, "pip-audit: pillow 1.0: PYSEC-1, fixed in 1.1, 2.0"),
        ((sys.executable, "-c", "raise SystemExit('down')"), 0, 1, "the advisory service cannot be reached (down)"),
    ],
)
def test_only_findings_fail_unless_all_must_be_looked_up(
    command: tuple[str, ...],
    status: int,
    strict_status: int,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(benchmarks.advisories, "COMMAND", command)
    for arguments, expected in (([], status), (["--strict"], strict_status)):
        monkeypatch.setattr(sys, "argv", ["advisories", *arguments])
        assert main() == expected
        assert sentence in capsys.readouterr().err
