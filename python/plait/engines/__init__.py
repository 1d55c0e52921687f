"""plait behind the interfaces of other libraries: one module each, registered by its import."""
