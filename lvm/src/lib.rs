//! Layered virtual machine, host side: execution, witness recording, batches.
