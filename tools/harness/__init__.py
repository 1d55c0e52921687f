"""What the scripts in tools/ share: interpreters, environments and the stages of `make test`."""
