"""The machine: devices, processes, signals, files, memory, compilation, versions; errors."""
