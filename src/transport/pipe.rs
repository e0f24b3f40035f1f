//! Both ends in one process: the real session, without a wire.

use super::{Connection, Ending, QUEUE, Receiver, Sender};
use crate::wire::frame::Frame;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Makes a connection and gives both of its ends.
pub fn pair(peer: &str) -> (Connection, Connection) {
    let (to_far, from_near) = mpsc::channel(QUEUE);
    let (to_near, from_far) = mpsc::channel(QUEUE);
    let ending = Arc::new(Ending::default());
    (end(peer, to_far, from_far, &ending), end("the master", to_near, from_near, &ending))
}

fn end(peer: &str, frames: mpsc::Sender<Frame>, incoming: mpsc::Receiver<Frame>, ending: &Arc<Ending>) -> Connection {
    let sender = Sender { peer: peer.to_owned(), frames, sent: Arc::default(), throttle: None, ending: ending.clone() };
    let receiver = Receiver {
        peer: peer.to_owned(),
        frames: super::Incoming::Pipe(incoming),
        received: 0,
        ending: ending.clone(),
    };
    Connection { sender, receiver }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Message;

    #[test]
    fn what_one_end_sends_the_other_receives_and_both_count_the_same() {
        let (near, mut far) = pair("the slave");
        near.sender.send(&Message::Finish).expect("sends");
        assert_eq!(far.receiver.recv().expect("receives"), Message::Finish);
        assert_eq!(near.sender.sent(), far.receiver.received());
        drop(near);
        assert!(far.receiver.recv().is_err());
    }
}
