"""The command line: one small file a command. They read arguments, call the library and show what it returned."""
