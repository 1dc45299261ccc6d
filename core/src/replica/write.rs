//! Local writes: an edit becomes a change, changes become a transaction, transactions share the next op of our stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Replica;
use super::expiry::Over;
use super::flush::Waiter;
use super::load::Loaded;
use super::records::{DeleteRecord, RequestRecord, Told, TxRef, TxState};
use super::schemas::admit;
use super::types::{
    DocWrite, Effect, ItemOutcome, ItemStatus, Precondition, RequestTicket, WriteError, WriteItem, WriteOutcome,
    WriteRequest,
};
use super::unique::Rule;
use super::write_rights::Limits;
use crate::authority::Action;
use crate::document::edit::{Edit, EditError, FieldTypes};
use crate::document::{self, LocalChange};
use crate::hlc::Hlc;
use crate::id::{
    AuthorKey, ChangeHash, CollectionName, DocId, OpId, PrincipalId, RequestId, RequestName, ShardId, StreamId,
};
use crate::limits;
use crate::op::{
    Body, ChangeRef, Collection, Delete, FieldPaths, FieldRights, Op, StreamKey, Transaction, WriteAction,
};
use crate::schema::Compiled;
use crate::store::Keyspace;
use crate::store::keys::{DocKey, Key as _, RequestKey};

/// Transactions that may gather while commits are under way; beyond, writers are told to come back.
pub(super) const GATHERING_TRANSACTIONS_MAX: usize = 8_192;

/// A stream that this replica appends to.
#[derive(Debug)]
pub(super) struct OwnStream {
    pub(super) key: StreamKey,
    pub(super) stream: StreamId,
    pub(super) next_seq: u64,
    pub(super) last: OpId,
}

/// An op that still takes transactions.
#[derive(Debug)]
pub(super) struct OpenOp {
    pub(super) seq: u64,
    pub(super) control_heads: Vec<OpId>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) bodies: Vec<Body>,
    /// For each change in order: the document, and the change's hash unless it is a delete.
    pub(super) changes: Vec<(DocKey, Option<ChangeHash>)>,
    bytes: usize,
    /// Bytes of the transactions in the header, and the fields that they declare.
    header_bytes: usize,
    declared: usize,
    /// Who waits for which transaction.
    pub(super) waiters: Vec<(u16, Waiter)>,
}

impl OpenOp {
    fn takes(&self, drafts: &[Draft]) -> bool {
        let bytes: usize = drafts.iter().map(|draft| draft.bytes.len() + 64).sum();
        self.transactions.len() < limits::TRANSACTIONS_MAX
            && self.changes.len() + drafts.len() <= limits::OP_CHANGES_MAX
            && (self.bytes + bytes <= limits::GROUP_BYTES_MAX || self.transactions.is_empty())
            && self.header_bytes + header_bytes(drafts) <= HEADER_ROOM
            && self.declared + declared(drafts) <= limits::OP_FIELDS_MAX
    }
}

/// What the transactions of an op may take of its header; the rest is for what every header has.
const HEADER_ROOM: usize = limits::HEADER_BYTES_MAX - (8 << 10);

/// Returns about how much of a header drafts take, rather too much.
fn header_bytes(drafts: &[Draft]) -> usize {
    let fields = |draft: &Draft| draft.fields.as_ref().map_or(0, FieldPaths::size);
    128 + drafts.iter().map(|draft| 64 + draft.key.doc.as_str().len() + fields(draft)).sum::<usize>()
}

fn declared(drafts: &[Draft]) -> usize {
    drafts.iter().map(|draft| draft.fields.as_ref().map_or(0, FieldPaths::len)).sum()
}

/// The form that a collection's settings give its documents.
struct Form {
    types: FieldTypes,
    schema: Option<Compiled>,
    unique: Option<Arc<Rule>>,
    over: Over,
}

/// A document as it was before a request edited it.
pub(super) struct Earlier {
    pub(super) key: DocKey,
    pub(super) document: document::Document,
    deletes: Vec<DeleteRecord>,
}

/// A change that was made to a loaded document and is to be signed.
struct Draft {
    key: DocKey,
    action: WriteAction,
    bytes: bytes::Bytes,
    hash: Option<ChangeHash>,
    /// What the header is to say of the fields that it touches.
    fields: Option<FieldPaths>,
}

impl Replica {
    pub(super) fn write(&mut self, ticket: RequestTicket, request: WriteRequest, effects: &mut Vec<Effect>) {
        match self.try_write(Some(ticket), &request) {
            Ok(()) => {}
            Err(error) => effects.push(Effect::WriteDone { ticket, result: Err(error) }),
        }
    }

    /// Makes a write; without a ticket nobody is told when it is durable.
    pub(super) fn try_write(
        &mut self,
        ticket: Option<RequestTicket>,
        request: &WriteRequest,
    ) -> Result<(), WriteError> {
        if let Some(reason) = &self.halted {
            return Err(WriteError::NotReady(reason.clone()));
        }
        let erased = |item: &&WriteItem| self.authority.is_erased(&request.collection, &item.doc);
        if let Some(item) = request.items.iter().find(erased) {
            return Err(WriteError::Erased(item.doc.clone()));
        }
        let gathering: usize = self.staged.open.values().flatten().map(|open| open.transactions.len()).sum();
        if gathering >= GATHERING_TRANSACTIONS_MAX {
            return Err(WriteError::Busy);
        }
        let principal = request.principal.unwrap_or(self.identity.principal);
        let author = self.author_of(principal);
        let settings = self.authority.collection(&request.collection).map(|settings| settings.config);
        let shard = shard_of_request(request, settings.as_ref())?;
        if let Some(id) = request.request
            && let Some(outcome) = self.replay(id, request)?
        {
            self.counters.requests_replayed += 1;
            self.staged.waiters.extend(ticket.map(|ticket| Waiter::Write(ticket, outcome)));
            return Ok(());
        }
        let schema = self.schemas.of(settings.as_ref());
        let types = settings.map_or_else(FieldTypes::default, |settings| FieldTypes::new(&settings.types));
        let unique = self.uniques.of(&request.collection);
        let form = Form { types, schema, unique, over: self.expiries.of(&request.collection) };
        let (drafts, items) = self.edit_all(&shard, author, principal, request, &form)?;
        let outcome = WriteOutcome { tx: None, items, hlc: Hlc::ZERO, replayed: false };
        if let Some(id) = request.request {
            // Also if nothing changed: made again later, the request might change what came after it.
            self.remember_request(&request.collection, id, &outcome);
        }
        if drafts.is_empty() {
            // What the answer speaks of may still be on its way to the disk: the answer waits for it too.
            self.staged.waiters.extend(ticket.map(|ticket| Waiter::Write(ticket, outcome)));
            return Ok(());
        }
        for draft in &drafts {
            self.dirty(&draft.key);
        }
        let waiter = ticket.map(|ticket| Waiter::Write(ticket, outcome));
        self.append(&shard, author, principal, request.request, drafts, waiter);
        Ok(())
    }

    /// Returns the key that signs what is written for a principal: the owner's own for the owner, else the node's.
    fn author_of(&self, principal: PrincipalId) -> AuthorKey {
        match &self.identity.owner {
            Some(owner) if self.owner_principal() == Some(principal) => owner.author(),
            Some(_) | None => self.identity.node.author(),
        }
    }

    /// Returns the number of shards of a collection.
    pub(super) fn shards_of(&self, collection: &CollectionName) -> u16 {
        self.authority.collection(collection).map_or(1, |settings| settings.config.shards)
    }

    /// Makes all edits, or none of them.
    fn edit_all(
        &mut self,
        shard: &ShardId,
        author: AuthorKey,
        principal: PrincipalId,
        request: &WriteRequest,
        form: &Form,
    ) -> Result<(Vec<Draft>, Vec<ItemOutcome>), WriteError> {
        let stream = self.own_stream(shard, author)?;
        if form.unique.is_some() {
            self.prepare_unique(&request.collection);
        }
        let mut before = Vec::new();
        let mut edited = self.edit_each(&stream, principal, request, form, &mut before);
        // All of the request together: what one of its documents gives up, another one may take.
        if let (Ok(_), Some(rule)) = (&edited, &form.unique)
            && let Err(error) = self.admit_unique(rule, &form.over, request, &before)
        {
            edited = Err(error);
        }
        if let Ok((drafts, _)) = &edited
            && (header_bytes(drafts) > HEADER_ROOM || declared(drafts) > limits::OP_FIELDS_MAX)
        {
            edited = Err(WriteError::Invalid("too many documents and fields in one transaction"));
        }
        if edited.is_err() {
            for Earlier { key, document, deletes } in before {
                if let Some(loaded) = self.cache.get(&key) {
                    loaded.document = document;
                    loaded.deletes = deletes;
                }
            }
        }
        edited
    }

    /// Makes edits until one cannot be made. Documents that may have to be what they were go to `before`.
    fn edit_each(
        &mut self,
        stream: &StreamKey,
        principal: PrincipalId,
        request: &WriteRequest,
        form: &Form,
        before: &mut Vec<Earlier>,
    ) -> Result<(Vec<Draft>, Vec<ItemOutcome>), WriteError> {
        let mut drafts = Vec::new();
        let mut items = Vec::new();
        for item in &request.items {
            let key = DocKey { collection: request.collection.clone(), doc: item.doc.clone() };
            self.ensure_loaded(&key)
                .map_err(|error| WriteError::Damaged { doc: item.doc.clone(), reason: error.to_string() })?;
            if (request.items.len() > 1 || form.unique.is_some())
                && let Some(loaded) = self.cache.get(&key)
            {
                let (document, deletes) = (loaded.document.clone(), loaded.deletes.clone());
                before.push(Earlier { key: key.clone(), document, deletes });
            }
            let (draft, outcome) = self.edit_one(stream, principal, &key, item, request, form)?;
            drafts.extend(draft);
            items.push(outcome);
        }
        Ok((drafts, items))
    }

    fn edit_one(
        &mut self,
        stream: &StreamKey,
        principal: PrincipalId,
        key: &DocKey,
        item: &WriteItem,
        request: &WriteRequest,
        form: &Form,
    ) -> Result<(Option<Draft>, ItemOutcome), WriteError> {
        let next = self.own.get(&(stream.shard.clone(), stream.author)).map_or(1, |own| own.next_seq);
        let not_kept = || WriteError::Damaged { doc: key.doc.clone(), reason: "it was not kept loaded".to_owned() };
        let loaded = self.cache.get(key).ok_or_else(not_kept)?;
        let is_over = loaded.exists() && form.over.is_ever() && form.over.hides(&loaded.document.json());
        let existed = loaded.exists() && !is_over;
        check_precondition(&item.precondition, existed, loaded.document.heads(), &key.doc)?;
        let action = match (&item.write, existed) {
            (DocWrite::Delete, true) => Action::Delete,
            (DocWrite::Expire, false) if is_over => Action::Delete,
            (DocWrite::Edit(_), true) => Action::Update,
            (DocWrite::Edit(Edit::Put(_)), false) => Action::Create,
            (DocWrite::Expire, _) | (DocWrite::Delete | DocWrite::Edit(_), false) => {
                return Err(WriteError::NotFound(key.doc.clone()));
            }
        };
        let was_there = action == Action::Create && !loaded.document.is_pristine();
        let mut rights = self.write_rights(principal, action, key, &request.limits)?;
        if was_there {
            // What brings a deleted document back builds on what it was: the header says "update", and so the verdict asks that.
            rights = self.write_rights(principal, Action::Update, key, &request.limits)?;
        }
        let loaded = self.cache.get(key).ok_or_else(not_kept)?;
        let actor = stream.actor(&principal, &key.doc);
        match &item.write {
            DocWrite::Delete | DocWrite::Expire => {
                let tx = TxRef { stream: stream.id(), seq: next, op: OpId::ZERO, tx: 0 };
                let heads = loaded.document.heads().to_vec();
                let record = DeleteRecord { tx, heads: heads.clone(), counts: true, hlc: Hlc::ZERO };
                loaded.deletes.push(record);
                loaded.apply_deletes();
                let draft = Draft {
                    key: key.clone(),
                    action: WriteAction::Delete,
                    bytes: Delete { heads: heads.clone() }.encode(),
                    hash: None,
                    fields: None,
                };
                let outcome = ItemOutcome { doc: key.doc.clone(), status: ItemStatus::Deleted, heads };
                Ok((Some(draft), outcome))
            }
            DocWrite::Edit(edit) => {
                let limits = Limits::of(rights);
                let before = (limits.is_some() || form.schema.is_some()).then(|| loaded.document.clone());
                let change = edit_loaded(loaded, &actor, key, item, edit, &form.types, limits.as_ref())?;
                if let (Some(schema), Some(_)) = (&form.schema, &change) {
                    // Who makes a document knows all that is in it.
                    let all = FieldRights::all();
                    let sight = limits.as_ref().filter(|_| existed || was_there).map_or(&all, Limits::sight);
                    let earlier = before.as_ref().filter(|_| existed);
                    if let Err(refused) = admit(schema, earlier, &loaded.document, sight) {
                        loaded.document = before.unwrap_or_default();
                        return Err(refused.of(key.doc.clone()));
                    }
                }
                let fields = match (&limits, &change) {
                    (Some(limits), Some(change)) => match limits.declaration(&loaded.document, change) {
                        Ok(fields) => fields,
                        Err(source) => {
                            loaded.document = before.unwrap_or_default();
                            return Err(WriteError::Edit { doc: key.doc.clone(), source });
                        }
                    },
                    (None, _) | (_, None) => None,
                };
                let status = match (existed, &change) {
                    (_, None) if existed => ItemStatus::Unchanged,
                    (true, _) => ItemStatus::Updated,
                    (false, _) => ItemStatus::Created,
                };
                let outcome = ItemOutcome { doc: key.doc.clone(), status, heads: loaded.document.heads().to_vec() };
                let draft = change.map(|change| Draft {
                    key: key.clone(),
                    action: if change.is_create { WriteAction::Create } else { WriteAction::Update },
                    bytes: change.bytes,
                    hash: Some(change.hash),
                    fields,
                });
                Ok((draft, outcome))
            }
        }
    }

    /// Returns the owner's principal if its key is here.
    pub(super) fn owner_principal(&self) -> Option<PrincipalId> {
        self.identity.owner.as_ref().map(|_| PrincipalId::from(self.identity.cluster.genesis()))
    }

    /// Puts a transaction into the op that is being filled.
    fn append(
        &mut self,
        shard: &ShardId,
        author: AuthorKey,
        principal: PrincipalId,
        request: Option<RequestId>,
        drafts: Vec<Draft>,
        waiter: Option<Waiter>,
    ) {
        let bytes: usize = drafts.iter().map(|draft| draft.bytes.len() + 64).sum();
        let Some(own) = self.own.get_mut(&(shard.clone(), author)) else { return };
        let open = self.staged.open.entry((shard.clone(), author)).or_default();
        if !open.last().is_some_and(|op| op.takes(&drafts)) {
            open.push(OpenOp {
                seq: own.next_seq,
                control_heads: self.authority.control_heads_for(own.stream),
                transactions: Vec::new(),
                bodies: Vec::new(),
                changes: Vec::new(),
                bytes: 0,
                header_bytes: 0,
                declared: 0,
                waiters: Vec::new(),
            });
            own.next_seq += 1;
        }
        let Some(op) = open.last_mut() else { return };
        let place = u16::try_from(op.transactions.len()).unwrap_or(u16::MAX);
        op.bytes += bytes;
        op.header_bytes += header_bytes(&drafts);
        op.declared += declared(&drafts);
        let mut changes = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let body = Body { salt: self.entropy.salt(), bytes: draft.bytes };
            let change = ChangeRef::new(draft.key.doc.clone(), draft.action, &body);
            changes.push(ChangeRef { fields: draft.fields, ..change });
            op.bodies.push(body);
            op.changes.push((draft.key, draft.hash));
        }
        op.transactions.push(Transaction { principal, request, changes });
        op.waiters.extend(waiter.map(|waiter| (place, waiter)));
    }

    /// Returns our stream in a shard, beginning it if need be.
    fn own_stream(&mut self, shard: &ShardId, author: AuthorKey) -> Result<StreamKey, WriteError> {
        let certificate = if author == self.identity.node.author() {
            self.identity.certificate
        } else {
            let why = "the owner key here is not an owner's any more";
            self.authority.owner_certificate(&author).ok_or_else(|| WriteError::NotAllowed(why.to_owned()))?
        };
        if let Some(own) = self.own.get(&(shard.clone(), author)).filter(|own| own.key.certificate == certificate) {
            return Ok(own.key.clone());
        }
        // What waits to be signed belongs to the stream before.
        self.sign_open_ops();
        let key = StreamKey { shard: shard.clone(), author, certificate, session: self.session };
        self.begin_stream(key.clone());
        Ok(key)
    }

    /// Goes on under another session: what is written from now on shares no stream and no actor with what was.
    pub(super) fn begin_session(&mut self) {
        // A copy of this node draws the same: what we signed last tells us apart, and a session that is known is not new.
        for last in self.own.values().map(|own| own.last) {
            self.entropy.stir(last);
        }
        loop {
            self.session = self.entropy.session();
            if self.heads.values().all(|head| head.key.session != self.session) {
                break;
            }
        }
        self.own.retain(|(shard, _), _| shard.is_control());
    }

    pub(super) fn begin_stream(&mut self, key: StreamKey) {
        let stream = key.id();
        // This session may have begun it before, and signed under another certificate of the key since.
        let (seq, last) = self.heads.get(&stream).map_or((0, OpId::ZERO), |head| (head.seq, head.head));
        let own = OwnStream { stream, next_seq: seq + 1, last, key: key.clone() };
        self.own.insert((key.shard, key.author), own);
    }

    /// Stages what our own signed op brings to documents: its changes and request ids. The documents have them already.
    pub(super) fn note_local_transactions(&mut self, op: &Op, changes: Vec<(DocKey, Option<ChangeHash>)>) {
        let header = op.header();
        let mut changes = changes.into_iter();
        for (index, (transaction, bodies)) in op.transactions().enumerate() {
            let tx = TxRef {
                stream: op.stream(),
                seq: header.seq,
                op: op.id(),
                tx: u16::try_from(index).unwrap_or(u16::MAX),
            };
            self.counters.transactions_applied += 1;
            for (place, body) in bodies.iter().enumerate() {
                let Some((key, hash)) = changes.next() else { break };
                match (hash, body) {
                    (Some(hash), Some(body)) => {
                        self.keep_change(&key, hash, (tx, place), &body.bytes);
                        if let Some(loaded) = self.cache.get(&key) {
                            loaded.times.insert(hash, header.hlc);
                        }
                    }
                    (Some(_), None) => {}
                    (None, _) => {
                        if let Some(loaded) = self.cache.get(&key) {
                            let own = |delete: &&mut DeleteRecord| delete.tx.op == OpId::ZERO;
                            if let Some(delete) = loaded.deletes.iter_mut().find(own) {
                                delete.tx = tx;
                                delete.hlc = header.hlc;
                            }
                        }
                    }
                }
            }
            if let Some(request) = transaction.request {
                self.note_request(header.collection(), request, header.hlc, tx);
            }
        }
    }

    /// Answers a request that was made before, here or elsewhere.
    fn replay(&mut self, request: RequestId, write: &WriteRequest) -> Result<Option<WriteOutcome>, WriteError> {
        let Some(record) = self.request_record(&write.collection, request.name()) else { return Ok(None) };
        let Some(stands) = self.standing(&record, request) else {
            // What was made under the key counts: a client that is told "done" would believe that this was.
            let mut others = record.seen.iter().map(|(.., other)| *other).collect::<BTreeSet<_>>();
            others.extend(record.told.as_ref().map(|told| told.request));
            let reused = others.into_iter().any(|other| other != request && self.standing(&record, other).is_some());
            if !reused {
                return Ok(None);
            }
            self.counters.requests_mismatched += 1;
            return Err(WriteError::RequestReused);
        };
        let tx = stands.map(|(_, tx)| tx);
        let hlc = stands.map_or(Hlc::ZERO, |(hlc, _)| hlc);
        let items = match record.told.filter(|told| told.request == request) {
            Some(told) => told
                .items
                .into_iter()
                .map(|(doc, status, heads)| ItemOutcome { doc, status: status_of(status), heads })
                .collect(),
            None => write
                .items
                .iter()
                .map(|item| self.outcome_now(&write.collection, item))
                .collect::<Result<_, WriteError>>()?,
        };
        Ok(Some(WriteOutcome { tx, items, hlc, replayed: true }))
    }

    /// Returns whether a request has been made and counts: with its transaction, or without one if it changed nothing or
    /// is about to be signed.
    fn standing(&mut self, record: &RequestRecord, request: RequestId) -> Option<Option<(Hlc, TxRef)>> {
        let of: Vec<_> = record.seen.iter().filter(|(.., of)| *of == request).collect();
        // A transaction that a revocation took back did nothing: the request may be made again.
        let counts = of.iter().find(|(.., tx, _)| matches!(self.tx_state(tx), None | Some(TxState::Duplicate)));
        match counts {
            Some((hlc, _, _, tx, _)) => Some(Some((*hlc, *tx))),
            None => {
                let told = record.told.as_ref().is_some_and(|told| told.request == request);
                (told && of.is_empty()).then_some(None)
            }
        }
    }

    /// What can be said of a write that another node took: the document as it is here now.
    fn outcome_now(&mut self, collection: &CollectionName, item: &WriteItem) -> Result<ItemOutcome, WriteError> {
        let key = DocKey { collection: collection.clone(), doc: item.doc.clone() };
        self.ensure_loaded(&key)
            .map_err(|error| WriteError::Damaged { doc: item.doc.clone(), reason: error.to_string() })?;
        let heads = self.cache.get(&key).map(|loaded| loaded.document.heads().to_vec()).unwrap_or_default();
        let status = match &item.write {
            DocWrite::Delete | DocWrite::Expire => ItemStatus::Deleted,
            // It was made by the write that this one repeats.
            DocWrite::Edit(_) if item.precondition == Precondition::Absent => ItemStatus::Created,
            DocWrite::Edit(_) => ItemStatus::Updated,
        };
        Ok(ItemOutcome { doc: item.doc.clone(), status, heads })
    }

    pub(super) fn request_record(
        &mut self,
        collection: &CollectionName,
        request: RequestName,
    ) -> Option<RequestRecord> {
        let key = RequestKey { collection: collection.clone(), request }.encode();
        let value = self.read_back(Keyspace::Requests, &key)?;
        match RequestRecord::decode(&value) {
            Ok(record) => Some(record),
            Err(error) => {
                self.halt(format!("read a request record: {error}"));
                None
            }
        }
    }

    fn remember_request(&mut self, collection: &CollectionName, request: RequestId, outcome: &WriteOutcome) {
        let mut record = self.request_record(collection, request.name()).unwrap_or_default();
        let items = outcome.items.iter();
        let items = items.map(|item| (item.doc.clone(), status_code(item.status), item.heads.clone())).collect();
        record.told = Some(Told { at_ms: self.now.wall_ms, request, items });
        let key = RequestKey { collection: collection.clone(), request: request.name() };
        self.put(Keyspace::Requests, key.encode(), &record.encode());
    }

    /// Notes a transaction under its request and returns the transactions known of it, in the order in which they count.
    pub(super) fn note_request(
        &mut self,
        collection: &CollectionName,
        request: RequestId,
        hlc: Hlc,
        tx: TxRef,
    ) -> Vec<TxRef> {
        let mut record = self.request_record(collection, request.name()).unwrap_or_default();
        let entry = (hlc, tx.op, tx.tx, tx, request);
        if let Err(at) = record.seen.binary_search(&entry) {
            record.seen.insert(at, entry);
            let key = RequestKey { collection: collection.clone(), request: request.name() };
            self.put(Keyspace::Requests, key.encode(), &record.encode());
        }
        record.of(request).collect()
    }
}

/// Checks a request's shape and returns the one shard that its documents share.
fn shard_of_request(request: &WriteRequest, settings: Option<&Collection>) -> Result<ShardId, WriteError> {
    if request.collection.is_system() {
        return Err(WriteError::NotAllowed("system collections take no documents".to_owned()));
    }
    if request.items.len() > limits::OP_CHANGES_MAX {
        return Err(WriteError::Invalid("too many documents in one transaction"));
    }
    if settings.is_some_and(|settings| settings.dropped) {
        return Err(WriteError::Invalid("the collection is dropped"));
    }
    let of = settings.map_or(1, |settings| settings.shards);
    let mut shards = BTreeSet::new();
    let mut docs = BTreeSet::new();
    for item in &request.items {
        shards.insert(ShardId::of_document(&request.collection, &item.doc, of));
        if !docs.insert(&item.doc) {
            return Err(WriteError::Invalid("a document occurs twice in one transaction"));
        }
    }
    let shard = shards.pop_first().ok_or(WriteError::Invalid("no document given"))?;
    if shards.is_empty() {
        Ok(shard)
    } else {
        Err(WriteError::Invalid("the documents of one transaction lie in several shards"))
    }
}

fn edit_loaded(
    loaded: &mut Loaded,
    actor: &crate::id::ActorId,
    key: &DocKey,
    item: &WriteItem,
    edit: &Edit,
    types: &FieldTypes,
    limits: Option<&Limits>,
) -> Result<Option<LocalChange>, WriteError> {
    let base = match &item.base {
        None => None,
        Some(heads) if loaded.document.is_at(heads) => None,
        Some(heads) => Some(loaded.document.base_for(actor, heads).ok_or_else(|| WriteError::UnknownBase {
            doc: key.doc.clone(),
            missing: heads.iter().find(|head| !loaded.document.contains(head)).copied().unwrap_or(ChangeHash::ZERO),
        })?),
    };
    let size = loaded.published.as_ref().map_or(0, |view| usize::try_from(view.json_bytes).unwrap_or(usize::MAX));
    let bytes = match edit {
        Edit::Put(_) => item.bytes,
        Edit::MergePatch(_) | Edit::JsonPatch(_) | Edit::Ops(_) => size.saturating_add(item.bytes),
    };
    if bytes > limits::JSON_BYTES_MAX {
        return Err(WriteError::TooLarge { doc: key.doc.clone(), bytes, max: limits::JSON_BYTES_MAX });
    }
    let limited = limits.map(|limits| limits.edit(&loaded.document, base.as_deref(), edit));
    let limited = limited.transpose().map_err(|source| WriteError::Edit { doc: key.doc.clone(), source })?;
    let edit = limited.as_ref().unwrap_or(edit);
    // A document that comes to be, or comes back, must have a change that no delete covers, even if it is an empty object or
    // has the same content as before.
    let damaged = |error: &document::EditError<EditError>| {
        Err(WriteError::Damaged { doc: key.doc.clone(), reason: error.to_string() })
    };
    let result = match edit {
        Edit::Put(value) if loaded.document.is_pristine() => loaded.document.fill(actor, value, types),
        Edit::Put(_) | Edit::MergePatch(_) | Edit::JsonPatch(_) | Edit::Ops(_) => {
            loaded.document.edit(actor, base.as_deref(), edit, types)
        }
    };
    match result {
        Ok(None) if !loaded.exists() => match loaded.document.touch(actor) {
            Ok(change) => Ok(Some(change)),
            Err(error) => damaged(&error),
        },
        Ok(change) => Ok(change),
        Err(document::EditError::Edit(source)) => Err(WriteError::Edit { doc: key.doc.clone(), source }),
        Err(other) => damaged(&other),
    }
}

fn check_precondition(
    precondition: &Precondition,
    exists: bool,
    heads: &[ChangeHash],
    doc: &DocId,
) -> Result<(), WriteError> {
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Exists => exists,
        Precondition::Absent => !exists,
        Precondition::HeadsAre(wanted) => exists && wanted.iter().any(|wanted| wanted == heads),
        Precondition::HeadsAreNot(unwanted) => !exists || !unwanted.iter().any(|unwanted| unwanted == heads),
    };
    if holds {
        return Ok(());
    }
    Err(WriteError::Precondition { doc: doc.clone(), heads: exists.then(|| heads.to_vec()) })
}

const fn status_code(status: ItemStatus) -> u8 {
    match status {
        ItemStatus::Created => 0,
        ItemStatus::Updated => 1,
        ItemStatus::Unchanged => 2,
        ItemStatus::Deleted => 3,
    }
}

const fn status_of(code: u8) -> ItemStatus {
    match code {
        0 => ItemStatus::Created,
        2 => ItemStatus::Unchanged,
        3 => ItemStatus::Deleted,
        _ => ItemStatus::Updated,
    }
}
