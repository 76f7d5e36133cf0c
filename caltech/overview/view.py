"""How MLflow's page shows our runs: which view, which columns in which order, which curve first.

MLflow keeps a view as a tag of the experiment, and opens it by `viewStateShareKey=` in a link. The
names of its parts are those of MLflow 3's page (main.*.js in mlflow/server/js/build).
"""

import json
from typing import TYPE_CHECKING

from caltech.tracking.address import KIND

if TYPE_CHECKING:
    from caltech.tracking.store import Store

KEY = "caltech"
VIEW = f"mlflow.sharedViewState.{KEY}"
BY = "metrics.`val/best_accuracy`"  # never the test part
COLUMNS = (
    BY,
    "metrics.`test/best_accuracy`",
    "metrics.`test/accuracy`",
    *(f"params.`{name}`" for name in ("model", "freeze", "lr", "batch_size", "seed")),
    "tags.`sweep`",
)
FIRST, SECOND = ("accuracy", "loss", "best_accuracy"), ("accuracy", "best_accuracy", "loss")
CHARTS = {"val": FIRST, "test": SECOND, "train": ("accuracy", "loss", "loss_last_step")}
CURVES = {"val/accuracy", "val/loss", "train/accuracy", "train/loss", "train/loss_last_step"}


def show(store: "Store") -> None:
    """Have MLflow's page show the store's runs our way; what a user chose as their kind stays."""
    known = store.client.get_experiment(store.experiment_id).tags
    wanted = {KIND[0]: known.get(KIND[0], KIND[1]), VIEW: _view()}
    for name, value in wanted.items():
        if known.get(name) != value:
            store.client.set_experiment_tag(store.experiment_id, name, value)


def link(server: str, experiment_id: str) -> str:
    """Address of all runs in that view."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&viewStateShareKey={KEY}"


def _view() -> str:
    state = {
        "orderByKey": BY,
        "orderByAsc": False,
        "selectedColumns": [*COLUMNS],
        "compareRunSections": [_section(name) for name in CHARTS],
        "compareRunCharts": [_chart(part, name) for part in CHARTS for name in CHARTS[part]],
        "isAccordionReordered": True,  # else the sections are sorted by name, and test is first
    }
    named = {"name": "caltech: by accuracy", "createdAt": 0, "updatedAt": 0}
    return json.dumps(named | {"state": json.dumps(state)})


def _section(name: str) -> dict[str, object]:
    shown = {"display": True, "isReordered": True, "deleted": False, "isGenerated": True}
    return {"uuid": f"{KEY}-{name}", "name": name, **shown}


def _chart(part: str, name: str) -> dict[str, object]:
    metric = f"{part}/{name}"
    chart = {
        "uuid": f"{KEY}-{part}-{name}",
        "metricSectionId": f"{KEY}-{part}",
        "metricKey": metric,
        "displayName": name,
        "deleted": False,
        "isGenerated": True,
        "runsCountToCompare": 10,
    }
    if metric not in CURVES:
        return chart | {"type": "BAR"}
    axes = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear"}
    axes |= {"yAxisKey": "metric", "yAxisExpressions": [], "range": {}, "lineSmoothness": 0}
    own = {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "ignoreOutliers": False}
    return chart | {"type": "LINE", "selectedXAxisMetricKey": ""} | axes | own
