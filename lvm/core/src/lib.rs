//! Stateless EVM state transition: the code that runs both on the host and inside the zkVM guest.
