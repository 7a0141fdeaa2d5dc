"""Estimated cost of the fits: growth with the sizes, and the lines of a dry run."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fgvc.launch import dry_run
from fgvc.report import fit_estimate
from fgvc.report.cost_estimate import Assumptions, Layout, format_estimate, seconds
from fgvc.report.fit_estimate import FitCost, ProbeSizes
from fgvc.run import main
from tests.narrow import not_none
from tests.report.test_cost_estimate import TINY, item

CUB = ProbeSizes(5394, 600, 5794, 768, 200)
INAT = ProbeSizes(521_266, 57_918, 95_986, 768, 5089)


def test_the_work_of_a_path_is_that_of_its_units():
    """N x D x C multiply-adds per product, two products per unit, in float64."""
    units, unit = fit_estimate.UNITS_PER_C, 2 * 2 * 5394 * 768 * 200
    for searches, values in ((False, 45), (True, fit_estimate.SEARCHED_SHARE * 45)):
        whole = fit_estimate.logistic_cost(replace(CUB, refits=False), 45, searches).flops
        assert whole == pytest.approx(2 * unit * units * (values + 1), rel=0.02)


@pytest.mark.parametrize("field", ["classes", "width"])
def test_the_work_is_linear_in_classes_and_width(field):
    doubled = replace(CUB, **{field: 2 * getattr(CUB, field)})
    for values in (1, 45):
        costs = [
            fit_estimate.logistic_cost(sizes, values, searches=True).flops
            for sizes in (CUB, doubled)
        ]
        assert costs[1] == pytest.approx(2 * costs[0])


def test_fewer_values_of_c_take_less():
    flops = [fit_estimate.logistic_cost(CUB, values, searches=False).flops for values in (1, 9, 45)]
    assert flops[0] < flops[1] < flops[2]
    assert flops[2] > 10 * flops[0]


def test_gradients_count_pairs_and_epochs_and_neighbours_count_pairs_of_images():
    fit = fit_estimate.gradient_cost(CUB, weights=768 * 200, pairs=6, epochs=100)
    # a forward and a backward pass per row, and the final fit
    products = 6 * 768 * 200 * 100 * (6 * 5394 + 5994)
    assert products < fit.flops < 2 * products
    knn = fit_estimate.knn_cost(CUB)
    product = 2 * 768 * (600 * 5394 + 5794 * 5994)
    assert product < knn.flops < 1.5 * product


def test_the_memory_at_the_size_of_inaturalist_is_bounded():
    features = 4 * 675_170 * 768
    costs = (
        fit_estimate.logistic_cost(INAT, 45, searches=True),
        fit_estimate.gradient_cost(INAT, 768 * 5089, 6, 100),
        fit_estimate.knn_cost(INAT),
    )
    for cost in costs:
        assert features < cost.memory < 5 * features + 8 * 2**30
    assert fit_estimate.logistic_cost(CUB, 45, searches=True).memory < 2 * 2**30


def lines(fits: list[FitCost | None], **more) -> str:
    items = [item(fit=fit, forward=0, cached=1000) for fit in fits]
    found = format_estimate(
        "one", "", items, [], Assumptions("cpu", [], 10**12, [], **more), Layout()
    )
    return " ".join(" ".join(found).split())


def test_the_estimate_names_the_time_of_the_fits_and_its_basis():
    fit = FitCost(7.2e15, 30e9, "many products")
    text = lines([fit, None, fit], flops=1e12, memory=40 * 10**9)
    assert "fits: about 4 h on the CPU, an estimate: 14,000 TFLOP at 1,000 GFLOP/s" in text
    assert "measured now by a float32 product; many products memory:" in text
    assert "memory: about 30 GB for the largest job; this machine has 40 GB" in text
    assert text.count(" cached 2.0 h ") == 2
    assert text.count(" cached – ") == 1
    assert "DOES NOT FIT" not in text
    assert "memory: DOES NOT FIT: about 30 GB" in lines([fit], memory=20 * 10**9)


def test_short_fits_are_not_estimated():
    text = lines([FitCost(1e9, 1e9, "x")], memory=40 * 10**9)
    assert "fits:" not in text
    assert " cached – " in text


def test_the_time_of_a_job_is_that_of_its_images_and_its_fit():
    job = item(fit=FitCost(5e12, 0, ""))
    assert seconds(job, [TINY], 1e12) == pytest.approx(15.0)
    assert seconds(job, [TINY]) == pytest.approx(10.0)
    assert seconds(job, [], 1e12) is None
    assert seconds(replace(job, done=True), [TINY], 1e12) == 0.0


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """plan(*overrides) -> the lines of a dry run; the machine has 100 GFLOP/s."""

    def start(*overrides: str) -> str:
        monkeypatch.setattr(fit_estimate, "matrix_rate", lambda: 1e11)
        monkeypatch.setattr(dry_run, "_counts", {})
        places = [f"runtime.{name}_root={tmp_path / name}" for name in ("data", "cache", "output")]
        assert main([*overrides, *places, "backbone=vit", "runtime.dry_run=true"]) == 0
        return " ".join(capsys.readouterr().out.split())

    return start


def tflop(text: str) -> float:
    """The work of the fits that a dry run prints."""
    return float(not_none(re.search(r"an estimate: ([\d,.]+) TFLOP", text))[1].replace(",", ""))


def test_a_dry_run_forecasts_every_head_at_the_size_of_inaturalist(plan):
    """The data is not here, so the counts are those of its definition."""
    text = plan("-m", "dataset=inat2017", "head=linear,knn,mlp,cosine")
    assert "fits: about " in text
    for basis in ("X W and X^T G", "kNN as the product", "gradient heads as 100 epochs"):
        assert text.count(basis) == 1
    assert "memory: about " in text
    assert " 675,170 ? linear" in text  # the rate of the images is unknown
    assert re.search(r" as above \S+ min knn ", f"{text} ")
    given = plan("dataset=inat2017", "task.c_low=1", "task.c_high=1")
    assert tflop(given) < tflop(plan("dataset=inat2017")) / 4


def test_few_values_of_c_are_all_solved_and_repeated_images_are_forwarded(plan):
    few, many = (tflop(plan("dataset=inat2017", f"task.c_count={n}")) for n in (10, 11))
    assert few > 1.5 * many  # eleven are searched
    text = plan("dataset=inat2017", "precision=bf16", "task.cascade=512", "task.certify=299")
    assert f" {675_170 + 512 + 299:,} ? " in text


def test_a_dry_run_of_small_fits_measures_nothing(plan):
    text = plan("dataset=synthetic", "dataset.generator.classes=5")
    assert "fits:" not in text
    assert "memory: about " in text
