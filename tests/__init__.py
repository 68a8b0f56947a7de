"""The tests; a package, so that test files share the helpers in `tests.support`."""
