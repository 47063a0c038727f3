"""What a process runs on: devices, other processes, signals, cores, the compiler, and the progress line."""
