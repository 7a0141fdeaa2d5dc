"""Whether a CPU computes in bfloat16, from files of several machines; and the notes that follow."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from fgvc.parallel import bf16_cpu

X86 = "processor\t: 0\nflags\t\t: fpu sse2 avx512f {}\n\nprocessor\t: 1\nflags\t\t: amx_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\nCPU part\t: 0xd40\n"


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """cpu(text) -> what has_bf16 says on Linux with this /proc/cpuinfo; None: there is none."""

    def ask(text: str | None) -> bool | None:
        if text is not None:
            (tmp_path / "cpuinfo").write_text(text)
        return bf16_cpu.has_bf16.__wrapped__()

    monkeypatch.setattr(bf16_cpu, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(bf16_cpu.sys, "platform", "linux")
    return ask


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_bf16 amx_int8"), True),
        (X86.format("avx512_vnni"), False),
        (ARM.format("bf16 i8mm"), True),
        (ARM.format("i8mm"), False),
        ("processor\t: 0\nmodel\t: unknown\n", None),
        (None, None),
    ],
)
def test_linux_lists_the_instructions(cpu, text, expected):
    assert cpu(text) is expected


@pytest.mark.parametrize(("answer", "expected"), [("1\n", True), ("0\n", False), ("", False)])
def test_macos_is_asked(monkeypatch, answer, expected):
    monkeypatch.setattr(bf16_cpu.sys, "platform", "darwin")
    monkeypatch.setattr(
        subprocess, "run", lambda *command, **options: SimpleNamespace(stdout=answer)
    )
    assert bf16_cpu.has_bf16.__wrapped__() is expected


def test_notes_are_given_only_where_they_are_true(monkeypatch):
    for has, slow, fast in ((True, False, True), (False, True, False), (None, False, False)):
        monkeypatch.setattr(bf16_cpu, "has_bf16", lambda has=has: has)
        assert (bf16_cpu.slow_note("bf16", "cpu") is not None) == slow
        assert (bf16_cpu.fast_note("fp32", "cpu", 20_000) is not None) == fast
        assert bf16_cpu.slow_note("fp32", "cpu") is bf16_cpu.slow_note("bf16", "cuda") is None
        assert bf16_cpu.fast_note("bf16", "cpu", 20_000) is None
        assert bf16_cpu.fast_note("fp32", "cpu", 9_999) is None


@pytest.mark.parametrize(
    ("task", "named"),
    [("probe", (True, True)), ("zero_shot", (False, True)), ("train", (False,) * 2)],
)
def test_the_advice_names_the_options_of_the_task(monkeypatch, task, named):
    monkeypatch.setattr(bf16_cpu, "has_bf16", lambda: True)
    note = bf16_cpu.fast_note("fp32", "cpu", 20_000, task) or ""
    assert tuple(f"task.{key}=" in note for key in ("cascade", "certify")) == named


def test_a_dry_run_and_a_run_say_that_bf16_is_slow(run, monkeypatch):
    monkeypatch.setattr(bf16_cpu, "has_bf16", lambda: False)
    small = ("backbone=vit", "backbone.size=mini", "precision=bf16", "runtime.device=cpu")
    small += ("resolution.side=64", "resolution.name=r64")
    planned = run(*small, "runtime.dry_run=true")
    assert "precision=bf16: this CPU has no bf16 instructions" in " ".join(planned.out.split())
    ran = run(*small)
    note, work = ran.out.find("note: precision=bf16: this CPU"), ran.out.find("features train")
    assert 0 <= note < work


def test_a_large_dry_run_advises_bf16_where_it_is_fast(run, monkeypatch):
    monkeypatch.setattr(bf16_cpu, "has_bf16", lambda: True)
    monkeypatch.setattr(bf16_cpu, "MANY", 90)
    planned = run("runtime.dry_run=true", "runtime.device=cpu")
    assert "90 forwards take about half as long" in " ".join(planned.out.split())
