"""The ground floor: names, cameras, streams, scenes, schedules and recipes that everything else is built on."""
