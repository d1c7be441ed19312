"""Draws the plots of docs/benchmarks.md: reads them as JSON from its standard input, `[{file, title, x, y, series}, …]`."""

import json
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt

# The same figures give the same file, and its text can be read and searched.
mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "toril", "svg.fonttype": "none", "font.family": "sans-serif", "axes.grid": True, "grid.alpha": 0.3})

for plot in json.load(sys.stdin):
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    for name, points in plot["series"].items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    ticks = sorted({x for points in plot["series"].values() for x, _ in points})
    axes.set(xscale="log", xlabel=plot["x"], ylabel=plot["y"], title=plot["title"])
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    figure.savefig(plot["file"], metadata={"Date": None, "Creator": None})
    plt.close(figure)
