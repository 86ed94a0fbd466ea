# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---

# %% [markdown]
# # Your own NetCDF file, from zero
#
# Somebody sends a file. Its variable and axes have other names, its temperatures are in K, its
# longitudes go from -180 to 180, its latitudes from north to south. None of this has to be
# changed.
#
# First we need such a file. This one is written from a simulated ocean; skip the next cell if you
# have your own.

# %%
import gridcast

sst, relief = gridcast.simulated_series("ocean", years=24, shape=(18, 36), seed=5)
theirs = (sst + 273.15).assign_attrs(units="K", long_name="temperature of the surface")
theirs = theirs.assign_coords(lon=(theirs["lon"] + 180) % 360 - 180).sortby("lon")
theirs = theirs.isel(lat=slice(None, None, -1))
theirs = theirs.rename(lat="nav_lat", lon="nav_lon", time="t").rename("tos_k")
theirs["nav_lat"].attrs = {"units": "degrees_north"}
theirs["nav_lon"].attrs = {"units": "degrees_east"}
theirs.to_netcdf("theirs.nc")

# %% [markdown]
# ## Look first
#
# `gridcast.open` reads a series and puts it in one form: time and latitude ascend, longitude is
# 0..360. What it found is shown; look whether variable, units, dates and grid are what you think.

# %%
series = gridcast.open("theirs.nc")
series.gridcast

# %%
series.gridcast.plot(date="1970-02")

# %% [markdown]
# What cannot be used is said in words. A variable that is not there:

# %%
try:
    gridcast.open("theirs.nc", variable="sst")
except gridcast.DataError as error:
    print(error)

# %% [markdown]
# ## Which years are for what
#
# Three periods, in this order: the network learns from the first, the best weights are chosen by
# the second, and the third is looked at once, at the end. Without `splits` gridcast takes 70, 15
# and 15 % of the years. It is better to say them: then a longer file next year changes nothing.

# %%
splits = {"train": [1950, 1965], "validation": [1966, 1969], "test": [1970, 1973]}

# %% [markdown]
# ## Train
#
# The file is given by its name, so that the run records which file it was. With a `directory` its
# files stay: weights, scores, hindcast, forecast and `report.html`, a page to look at.

# %%
forecaster = gridcast.Forecaster(
    model={"name": "conv_lstm", "hidden": [12]},
    inputs=3,
    leads=4,
    epochs=5,
    splits=splits,
    directory="runs/theirs",
)
forecaster.fit("theirs.nc")

# %% [markdown]
# ## Forecast
#
# From the last date of the file, or from any other in it. The forecast is in K, as the file is.

# %%
forecaster.predict(start="1972-06")

# %%
forecaster.plot("theirs.nc")

# %% [markdown]
# Later, in another session, the run is read again. It takes newer data in any form: here those in
# degC and on 0..360 that the file was made from, and gives the forecast in K all the same.

# %%
run = gridcast.load_run("runs/theirs")
forecast = run.forecast(sst)
forecast.to_netcdf("forecast.nc")
forecast.gridcast

# %% [markdown]
# The same without Python: `gridcast train my.yaml` with these settings in a file, see README.
