//! What holds for the whole process and the whole workspace.

mod walls;
