# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # A first forecast, in ten lines
#
# An ocean of monthly sea-surface temperature, a network that learns from its first years, and a
# forecast from its last month. The ocean is simulated, so that this runs anywhere in a minute;
# with `gridcast.open("ersst-v5")` or `gridcast.open("your.nc")` in its place the rest stays.

# %%
import gridcast

sst, relief = gridcast.simulated_series("ocean", years=30, shape=(18, 36))

# %% [markdown]
# An anomaly is the departure from the seasonal cycle. The dates of that cycle have to be named:
# here the years that training will use, and none that the forecast is judged on.

# %%
anomaly = sst.gridcast.anomaly((1950, 1971))
anomaly.gridcast.plot(date="1978-01")

# %% [markdown]
# `fit` trains on the first 70 % of the years, chooses the best weights by the next 15 %, and
# judges on the last 15 %. What it shows is the error on those last years, beside forecasts that
# need no network: if the model is not below them, it has learned nothing.

# %%
forecaster = gridcast.Forecaster(model="conv_lstm", leads=6, inputs=3, epochs=6)
forecaster.fit(sst)

# %% [markdown]
# The forecast is an `xarray.Dataset` with the date it starts from, the leads and the dates it is
# for. Most of the change below is the season.

# %%
forecast = forecaster.predict(sst)
forecaster.plot()

# %% [markdown]
# The error grows with the lead, towards that of climatology, which knows the season only.

# %%
forecaster.score().gridcast.plot()

# %%
forecast.to_netcdf("forecast.nc")
