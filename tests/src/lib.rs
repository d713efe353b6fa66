//! System tests and their harness.
