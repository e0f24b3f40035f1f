//! The other end as the sending one sees it: where batches go, and what is heard meanwhile.

use super::Result;
use crate::id::Position;
use crate::maildir::change::Change;
use crate::sync::SyncError;
use crate::sync::cycle::Sink;
use crate::transport::{Connection, LinkError, Receiver, Sender};
use crate::wire::message::{Done, Message};

/// Changes in one message.
const CHANGES: usize = 1000;

/// A connection over which batches are sent.
pub struct Wire<'a> {
    sender: &'a Sender,
    receiver: &'a mut Receiver,
    /// The last batch that was sent.
    pub position: Position,
    /// The last batch that is durable at the other end.
    durable: Position,
    epoch: u64,
}

impl<'a> Wire<'a> {
    /// Batches that follow on a position, in this epoch.
    pub fn new(connection: &'a mut Connection, position: Position, epoch: u64) -> Self {
        Self { sender: &connection.sender, receiver: &mut connection.receiver, position, durable: position, epoch }
    }

    /// Hears what the other end has to say meanwhile.
    fn hear(&mut self) -> Result<()> {
        while let Some(message) = self.receiver.try_recv()? {
            match message {
                Message::Ack(position) => self.durable = position,
                Message::Refuse(refusal) => return Err(SyncError::Refused(refusal)),
                _ => return Err(SyncError::Protocol("it answered what was not asked")),
            }
        }
        Ok(())
    }

    /// Where sending fails the other end has mostly said why before it closed, and that is on its way.
    fn sent(&mut self, sent: std::result::Result<(), LinkError>) -> Result<()> {
        sent.map_err(|closed| {
            loop {
                match answer(self.receiver) {
                    Ok(_) => {}
                    Err(refused @ SyncError::Refused(_)) => return refused,
                    Err(_) => return closed.into(),
                }
            }
        })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Where the other end does not go on, or the connection is closed.
    pub fn send(&mut self, message: &Message) -> Result<()> {
        let sent = self.sender.send(message);
        self.sent(sent)
    }

    /// Waits until the other end has acknowledged the last batch that was sent.
    ///
    /// # Errors
    /// Where the other end does not go on, or the connection is closed.
    pub fn until_durable(&mut self) -> Result<()> {
        while self.durable < self.position {
            match answer(self.receiver)? {
                Message::Ack(position) => self.durable = position,
                _ => return Err(SyncError::Protocol("it did not acknowledge what it was sent")),
            }
        }
        Ok(())
    }

    /// The answer to what was asked.
    ///
    /// # Errors
    /// Where the other end does not go on, or the connection is closed.
    pub fn answer(&mut self) -> Result<Message> {
        loop {
            match answer(self.receiver)? {
                Message::Ack(_) => {}
                message => return Ok(message),
            }
        }
    }
}

impl Sink for Wire<'_> {
    fn block(&mut self, payload: Vec<u8>) -> Result<()> {
        self.hear()?;
        let sent = self.sender.send_block(payload);
        self.sent(sent)
    }

    fn batch(&mut self, changes: &[Change]) -> Result<()> {
        self.hear()?;
        for part in changes.chunks(CHANGES) {
            self.send(&Message::Changes(part.to_vec()))?;
        }
        self.position = self.position.next(self.epoch);
        self.send(&Message::Commit(self.position, changes.len() as u64))
    }
}

/// The next message, where a refusal is an error.
///
/// # Errors
/// Where the other end does not go on, or the connection is closed.
pub fn answer(receiver: &mut Receiver) -> Result<Message> {
    match receiver.recv()? {
        Message::Refuse(refusal) => Err(SyncError::Refused(refusal)),
        message => Ok(message),
    }
}

/// Says that this end lives, and hears whether the other has closed.
///
/// # Errors
/// Where it has.
pub fn ping(connection: &mut Connection) -> Result<()> {
    connection.sender.send(&Message::Ping)?;
    match connection.receiver.try_recv()? {
        None | Some(Message::Ack(_)) => Ok(()),
        Some(Message::Refuse(refusal)) => Err(SyncError::Refused(refusal)),
        Some(_) => Err(SyncError::Protocol("it answered what was not asked")),
    }
}

/// Hears that everything is done.
///
/// # Errors
/// Where the other end does not go on, or the connection is closed.
pub fn done(connection: &mut Connection) -> Result<Done> {
    loop {
        match answer(&mut connection.receiver)? {
            Message::Ack(_) => {}
            Message::Done(done) => return Ok(done),
            _ => return Err(SyncError::Protocol("it did not say that it is done")),
        }
    }
}

/// Says that something is at its end, and hears that all of it is done.
///
/// # Errors
/// Where the other end does not go on, or the connection is closed.
pub fn finish(connection: &mut Connection, word: &Message) -> Result<Done> {
    let sent = connection.sender.send(word);
    match (done(connection), sent) {
        // What it said before it closed tells more than that it did.
        (Err(refused @ SyncError::Refused(_)), _) => Err(refused),
        (Err(_), Err(closed)) => Err(closed.into()),
        (heard, _) => heard,
    }
}
