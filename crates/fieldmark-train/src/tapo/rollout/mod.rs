//! The rollouts of a step.

mod draw;
mod responder;

pub(super) use self::{
    draw::Drawer,
    responder::{Responder, Wanted},
};
