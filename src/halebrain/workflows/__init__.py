"""The work of each command: typed settings in, typed result out; progress and messages go to the caller."""
