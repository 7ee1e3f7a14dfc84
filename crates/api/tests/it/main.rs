//! What holds for the whole process and the whole workspace.

mod service;
mod shutdown;
mod slow_clients;
mod wire;
