"""The panels of the W&B workspace that `python -m mocosfl.dashboard` saves; made without a network.

They name what `mocosfl.tracking.wandb_run` logs; a panel whose name a run does not have stays
empty.
"""

import wandb_workspaces.workspaces as workspaces
from wandb_workspaces.reports import v2 as panels
from wandb_workspaces.reports.v2.interface import PanelTypes

from mocosfl.runs.probe_names import LINEAR
from mocosfl.tracking.wandb_run import X_AXIS

NAME = "MocoSFL"
PROBE = f"{LINEAR.logged}_final"
SETTINGS = ("method", "dataset", "partition", "clients", "cut_layer", "taressfl")
RESULTS = ("best/knn_top1", PROBE, "overhead/client_bytes")


def make_dashboard(entity: str, project: str) -> workspaces.Workspace:
    """Lay out the panels.

    Args:
        entity: W&B team or user.
        project: W&B project.
    """
    columns = [f"config:{name}" for name in SETTINGS] + [f"summary:{name}" for name in RESULTS]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name=name, panels=shown, is_open=True)
            for name, shown in {
                "Accuracy": _accuracy(),
                "Training": _training(),
                "Data and probes": _pictures(),
                "Privacy": _privacy(),
                "What a client costs": _cost(),
            }.items()
        ],
        settings=workspaces.WorkspaceSettings(x_axis=X_AXIS, max_runs=50),
        # Beside the names of the runs, where they are sorted and filtered.
        runset_settings=workspaces.RunsetSettings(pinned_columns=columns),
    )


def _accuracy() -> list[PanelTypes]:
    axes: list[panels.Config | panels.SummaryMetric] = [
        *(panels.Config(name) for name in ("clients", "cut_layer", "partition", "method")),
        panels.SummaryMetric(PROBE),
    ]
    return [
        _curve("kNN on training images, mean", "val/knn_top1", by="clients"),
        _curve("kNN on training images, mean", "val/knn_top1", by="cut_layer"),
        panels.BarPlot(title="Linear probe on test images", metrics=[PROBE]),
        panels.ScatterPlot(
            title="Linear probe against bytes a client",
            x=panels.SummaryMetric("overhead/client_bytes"),
            y=panels.SummaryMetric(PROBE),
            log_x=True,
        ),
        panels.ScatterPlot(
            title="Linear probe against clients",
            x=panels.Config("clients"),
            y=panels.SummaryMetric(PROBE),
            log_x=True,
        ),
        panels.ParallelCoordinatesPlot(
            title="From settings to the linear probe",
            columns=[panels.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes],
        ),
    ]


def _training() -> list[PanelTypes]:
    return [
        _curve("Loss", "train/loss"),
        _curve("Contrast accuracy of the last pass", "train/contrast_accuracy"),
        _curve("Spread of the embeddings in the last pass", "train/embedding_std"),
        _curve("Divergence of the heads", "sync/divergence_mean"),
        _curve("Divergence of the heads, mean", "sync/divergence_mean", by="clients"),
        _curve("Learning rates", "lr/server", "lr/clients"),
        _curve("Images a second", "time/images_per_second"),
    ]


def _pictures() -> list[PanelTypes]:
    return [
        panels.MediaBrowser(title="Who holds what", media_keys=["pictures/partition"]),
        panels.MediaBrowser(title="Two views of each image", media_keys=["pictures/views"]),
        panels.MediaBrowser(title="Probes by class", media_keys=["probe/per_class_picture"]),
        panels.WeavePanelSummaryTable(table_name="probe/per_class"),
        panels.MediaBrowser(title="Map of the features", media_keys=["probe/embedding_map"]),
    ]


def _privacy() -> list[PanelTypes]:
    return [
        panels.ScatterPlot(
            title="Linear probe against the decoder's SSIM",
            x=panels.SummaryMetric("attack/decoder_ssim"),
            y=panels.SummaryMetric(PROBE),
        ),
        panels.MediaBrowser(title="The attacks", media_keys=["attack/reconstructions"]),
        _curve("SSIM of the simulated attacker", "privacy/attacker_ssim"),
        panels.MediaBrowser(title="The simulated attacker", media_keys=["privacy/reconstructions"]),
    ]


def _cost() -> list[PanelTypes]:
    titles = {
        "client_up_bytes": "Bytes up a client",
        "client_down_bytes": "Bytes down a client",
        "client_paper_bytes": "Bytes a client by the paper's convention",
        "client_memory_bytes": "Memory of a client, counted, bytes",
    }
    return [
        panels.BarPlot(title=title, metrics=[f"overhead/{name}"]) for name, title in titles.items()
    ]


def _curve(title: str, *names: str, by: str | None = None) -> panels.LinePlot:
    """Return curves over the images seen: one a run, or with `by` the mean one a setting."""
    return panels.LinePlot(
        title=f"{title} by {by}" if by else title,
        x=X_AXIS,
        y=list(names),
        title_x="images seen",
        groupby=panels.Config(by) if by else None,
        groupby_aggfunc="mean" if by else None,
    )
