"""Makes `test` a package of these tests: without, Python would find its own."""
