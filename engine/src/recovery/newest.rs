//! The newest segment of a log: the only one that a crash can have torn.
//!
//! ```text
//!   open_active --closed in order--> its length and indexes are taken as they are
//!        |
//!   scan_active   from the checkpoint on, batch by batch, up to the first that is bad
//!        |
//!      judge      torn, or damaged: the table in recovery.rs
//!        |
//!   cut_and_sync, read_head          where the appender goes on
//! ```

use super::{EPOCHS_FILE_NAME, Recovery};
use crate::batch::{BatchHeader, HEADER_LEN};
use crate::epochs::LeaderEpochs;
use crate::error::Offline;
use crate::index::SegmentBounds;
use crate::index_files;
use crate::io::{BLOCK, File, Io, OpenedFile};
use crate::mark::{self, Mark};
use crate::producer::ProducerState;
use crate::scan::{Reach, Stretch, WalkEnd, Window, valid_behind, walk};
use crate::segment::{Indexes, Segment, file_name};
use crate::units::{BytePos, Offset, TimestampMs};
use std::rc::Rc;

impl<I: Io> Recovery<'_, I> {
    /// The newest segment; true where a clean stop has closed it, so that its length
    /// and indexes can be taken as they are.
    pub(super) async fn open_active(
        &self,
        base: Offset,
        mark: Option<Mark>,
    ) -> Result<(Rc<Segment<I>>, Rc<I::File>, Reach, bool), Offline> {
        let segment = Segment::active(self.dir, base);
        let name = file_name(base, "log");
        let has = self.files.borrow_mut().remove(&name);
        let has = has.unwrap_or_else(|| unreachable!("the first look opens the newest segment"));
        let OpenedFile {
            file,
            len,
            data_end,
            ..
        } = has.map_err(|e| Offline::failed("open", &segment.path, e))?;
        let (file, reach) = (Rc::new(file), Reach { len, data_end });
        segment.set_file(file.clone());
        let Some(mark) = mark.filter(|m| self.clean && m.segment == base && m.pos.0 == len) else {
            return Ok((segment, file, reach, false));
        };
        let bounds = SegmentBounds {
            base_offset: base,
            next_offset: mark.offset,
            end: mark.pos,
        };
        let Some(indexes) = self.read_indexes(&file, bounds).await? else {
            return Ok((segment, file, reach, false));
        };
        let Some(first) = self.closed_at(&segment, &file, &indexes, mark).await? else {
            // The scan that follows says what is wrong.
            return Ok((segment, file, reach, false));
        };
        let largest = indexes.times.last().unwrap_or((TimestampMs::NONE, base));
        let now = self.io.wall();
        let segment = Segment::sealed(self.dir, base, len, mark.offset, largest, now);
        segment.set_file(file.clone());
        segment.unseal(indexes, first);
        Ok((segment, file, reach, true))
    }

    /// The index files of the newest segment, as the first look has them.
    async fn read_indexes(
        &self,
        file: &Rc<I::File>,
        bounds: SegmentBounds,
    ) -> Result<Option<Indexes>, Offline> {
        let base = bounds.base_offset;
        let mut both = Vec::with_capacity(2);
        for extension in ["index", "timeindex"] {
            // One that is not there, or can't be read, is made anew.
            match self.read(&file_name(base, extension)).await {
                Ok((_, bytes)) => both.push(bytes),
                Err(_) => return Ok(None),
            }
        }
        index_files::sound(self.dir, file, bounds, [&both[0], &both[1]]).await
    }

    /// The timestamp of the first batch of a segment that was closed in order. None where
    /// its last batches, whose block is written again, are not what they were.
    async fn closed_at(
        &self,
        segment: &Segment<I>,
        file: &Rc<I::File>,
        indexes: &Indexes,
        mark: Mark,
    ) -> Result<Option<TimestampMs>, Offline> {
        let bytes = file
            .read_at(0, HEADER_LEN)
            .await
            .map_err(|e| Offline::failed("read", &segment.path, e))?;
        let Some((_, pos)) = indexes.offsets.last() else {
            return Ok((mark.pos == BytePos::ZERO).then_some(TimestampMs::NONE));
        };
        let stretch = Stretch {
            base: segment.base,
            pos,
            next: segment.base,
            below: Some(mark.offset),
        };
        let mut window = Window::to_walk(file, &segment.path, Reach::of(mark.pos.0));
        let end = walk(&mut window, mark.pos.0, stretch, |_, _| ()).await?;
        let first = BatchHeader::parse(&bytes).ok().map(|h| h.max_timestamp());
        Ok(first.filter(|_| end.fault.is_none() && end.next == mark.offset))
    }

    pub(super) async fn scan_active(
        &self,
        segment: &Rc<Segment<I>>,
        window: &mut Window<I::File>,
        len: u64,
        mark: Option<Mark>,
        producers: &mut ProducerState,
        epochs: &mut LeaderEpochs,
    ) -> Result<WalkEnd, Offline> {
        let now = self.io.wall();
        // The front, or where a checkpoint has it begin.
        let begin = segment.end();
        let stretch = Stretch {
            base: segment.base,
            pos: begin.pos,
            next: begin.offset,
            below: None,
        };
        let at = mark.filter(|m| m.segment == segment.base);
        let mut at_mark = at.filter(|m| m.pos == begin.pos).map(|_| begin.offset);
        // Our checkpoint is written before the first batch of its epoch, and the field is
        // not under the batch's CRC. Batches below the log start are no longer in it.
        let checkpointed = mark.is_some() && !epochs.entries().is_empty();
        let mut wrong_epoch = None;
        let end = walk(window, len, stretch, |header, pos| {
            segment.extend(header, self.config.index_interval_bytes, now);
            let (epoch, base) = (header.leader_epoch(), header.base_offset());
            if !checkpointed {
                epochs.assign(epoch, base);
            } else if let Some(known) = epochs.epoch_at(base)
                && epoch.0 >= 0
                && epoch != known
            {
                wrong_epoch = wrong_epoch.or(Some((pos, epoch, known)));
            }
            if header.base_offset() >= producers.next_offset() {
                producers.apply(header);
            }
            let end = segment.end();
            at_mark = at_mark.or(at.filter(|m| m.pos == end.pos).map(|_| end.offset));
        })
        .await?;
        if let Some((pos, is, known)) = wrong_epoch {
            let what = format!(
                "the batch is of leader epoch {is}, and {EPOCHS_FILE_NAME} says {known} for it"
            );
            return Err(Offline::corrupt(&segment.path, pos, what));
        }
        match at {
            Some(mark) if end.pos >= mark.pos && at_mark != Some(mark.offset) => {
                let found = match at_mark {
                    Some(offset) => format!("it is offset {offset} here"),
                    None => "no batch ends here".to_owned(),
                };
                let what = format!(
                    "{found}, and the log was committed up to offset {}",
                    mark.offset
                );
                Err(Offline::corrupt(&segment.path, mark.pos, what))
            }
            _ => Ok(end),
        }
    }

    /// The table at the top. Ok: how many bytes behind the end are a torn tail.
    pub(super) async fn judge(
        &self,
        segment: &Rc<Segment<I>>,
        file: &Rc<I::File>,
        reach: Reach,
        end: WalkEnd,
        mark: Option<Mark>,
    ) -> Result<u64, Offline> {
        let committed = mark
            .filter(|m| m.segment == segment.base)
            .map_or(BytePos::ZERO, |m| m.pos);
        if end.pos < committed {
            let what = end.fault.unwrap_or_else(|| "the file ends here".to_owned());
            return Err(Offline::corrupt(
                &segment.path,
                end.pos,
                format!(
                    "{what}; the log was committed up to byte {committed}, so this is damage and not the tail of a crash"
                ),
            ));
        }
        if let (Some(_), Some(gap)) = (mark, end.gap.filter(|&gap| gap >= committed)) {
            return Err(Offline::corrupt(
                &segment.path,
                gap,
                "its offset does not follow that of the batch before it",
            ));
        }
        let Some(fault) = end.fault.filter(|_| !end.only_zeros) else {
            return Ok(0);
        };
        let Some(Mark { window, .. }) = mark else {
            return Err(Offline::corrupt(
                &segment.path,
                end.pos,
                format!(
                    "{fault}; no mark says how far the log was committed, so nothing is cut. A Kafka broker's folder can be taken over once that broker has closed it in order; else cut the file here to give up what is behind"
                ),
            ));
        };
        let behind = valid_behind(file, &segment.path, reach, end.pos.plus(1), end.next).await?;
        match behind {
            Some(last)
                if window != mark::UNBOUNDED && last.0 > committed.0.saturating_add(window) =>
            {
                Err(Offline::corrupt(
                    &segment.path,
                    end.pos,
                    format!(
                        "{fault}; whole batches stand behind it up to byte {last}, so this is damage and not the tail of a crash"
                    ),
                ))
            }
            _ => Ok(reach.len - end.pos.0),
        }
    }

    /// Whatever was only stable is committed now; whatever is behind the end is gone,
    /// so that no later crash can mistake it for a batch.
    pub(super) async fn cut_and_sync(
        &self,
        segment: &Rc<Segment<I>>,
        file: &Rc<I::File>,
    ) -> Result<(), Offline> {
        let path = &segment.path;
        file.truncate(segment.size_bytes())
            .await
            .map_err(|e| Offline::failed("cut", path, e))?;
        file.fdatasync()
            .await
            .map_err(|e| Offline::failed("sync", path, e))?;
        self.sync_dir().await
    }

    pub(super) async fn read_head(
        &self,
        segment: &Segment<I>,
        window: &mut Window<I::File>,
        end: BytePos,
    ) -> Result<Vec<u8>, Offline> {
        let start = end.0 / BLOCK as u64 * BLOCK as u64;
        let n = (end.0 - start) as usize;
        if n == 0 {
            return Ok(Vec::new());
        }
        let bytes = window.get(start, n).await?;
        if bytes.len() < n {
            return Err(Offline::corrupt(
                &segment.path,
                BytePos(start + bytes.len() as u64),
                "the file ends here",
            ));
        }
        Ok(bytes.to_vec())
    }
}
