//! What holds for the whole process and the whole workspace.

mod config;
mod faults;
mod openapi;
mod service;
mod shutdown;
mod slow_clients;
mod walls;
mod wire;
