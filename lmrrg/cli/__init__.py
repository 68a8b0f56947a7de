"""The command line: a module for each subcommand of ``lmrrg``, and tools that are run by module."""
