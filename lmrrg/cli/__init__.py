"""The subcommands of ``lmrrg``: each module has ``add_arguments(parser)`` and ``run(args) -> int``."""
