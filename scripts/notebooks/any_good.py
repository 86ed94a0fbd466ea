# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Is my model any good?
#
# A small error says nothing by itself: most of the sea is as warm next month as the season says.
# A model is worth something if it is better than forecasts that cost nothing, on dates that it
# has never seen, by more than chance. This notebook asks these three questions of a small network
# on a simulated ocean.

# %%
import numpy as np

import gridcast

sst, relief = gridcast.simulated_series("ocean", years=40, shape=(18, 36), seed=2)
splits = {"train": [1950, 1975], "validation": [1976, 1981], "test": [1982, 1989]}
forecaster = gridcast.Forecaster("conv_lstm", inputs=3, leads=6, epochs=6, splits=splits)
forecaster.fit(sst)

# %% [markdown]
# ## 1. Better than what?
#
# The table above and the curves below hold the model against four references, on the same dates:
#
# - **climatology**: the seasonal cycle of the training years,
# - **anomaly persistence**: this month's anomaly stays,
# - **damped persistence**: it fades at the rate that it had in training,
# - the **linear inverse model** (LIM): patterns that move and fade.
#
# Persistence is hard to beat at short leads and climatology at long ones. Damped persistence has
# both in it; here the network starts from it and learns a correction.

# %%
scores = forecaster.score()
scores.gridcast.plot()

# %% [markdown]
# ## 2. Better by more than chance?
#
# Skill is 1 - MSE of the model / MSE of the reference: 0 is as good as the reference. The test
# years are a sample; with others the skill would differ. The interval tells by how much: blocks
# of dates are drawn again and again, 95 % of the skills lie inside. Only where it leaves out 0 is
# the difference more than chance.

# %%
for reference in scores["reference"].values:
    print(reference)
    for lead in scores["lead"].values:
        one = scores.sel(reference=reference, lead=lead)
        low, high = one["skill_interval"].values
        said = "better" if low > 0 else "worse" if high < 0 else "may be chance"
        print(f"  lead {lead}: skill {one['skill']:6.3f}, {low:6.3f} to {high:6.3f}: {said}")

# %% [markdown]
# ## 3. On dates it has never seen?
#
# What leaks from the test years into a model makes it look better than it will be. gridcast fits
# nothing on them: the climatology, the scaling, the damping, the patterns and the weights are
# those of training years. Periods that overlap are refused:

# %%
try:
    gridcast.Forecaster(splits=splits | {"train": [1950, 1989]})
except gridcast.ConfigError as error:
    print(error)

# %% [markdown]
# A leak that is easily made is the climatology of *all* years. It knows the test years, so
# their anomalies are smaller than those that a forecaster has to deal with. The same forecast,
# "as the season is", gets a better score for it without having become any better:

# %%
test = {"time": slice("1982", "1989")}
weights = np.cos(np.deg2rad(sst["lat"]))
error = {}
for name, period in {"training years": (1950, 1975), "all years": (1950, 1989)}.items():
    anomaly = sst.gridcast.anomaly(period).sel(test)
    error[name] = float(np.sqrt((anomaly**2).weighted(weights).mean()))
    print(f"RMSE of the climatology of {name}: {error[name]:.3f} degC")
print(f"gained by looking: {100 * (1 - error['all years'] / error['training years']):.1f} %")

# %% [markdown]
# This is why `anomaly` has no default for its dates.
#
# ## And where?
#
# One number for the world hides much. Where this map is red the model has the smaller error,
# where it is blue damped persistence has; near 0 is no difference.

# %%
skill = scores["skill_map"].sel(reference="damped_persistence", lead=1)
share = float((skill > 0).sum() / skill.count())
print(f"better at lead 1 in {100 * share:.0f} % of the cells")
skill.plot(vmin=-0.5, vmax=0.5, cmap="RdBu_r").axes.set_facecolor("lightgrey")
