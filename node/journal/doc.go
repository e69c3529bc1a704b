// Package journal keeps records on the disk of one machine until they are deleted:
// a small append-only file of checksummed frames.
//
// # What it promises
//
// When [Journal.Write] returns nil, its changes are on the disk: they survive the end of
// the process and of the machine. The changes of one call are there together or not at
// all. Whoever calls at the same time shares one sync of the disk.
//
// A write that was cut off, the tail of the file after a crash, is left out. Damage in the
// middle is stepped over: what follows is read, and [Open] says how many bytes could not
// be. Both are kept in a file beside the journal, <name>.damaged-<UTC time>.
//
// A full disk, and a journal that has reached its limit, refuse the write with storage-full
// and leave everything as it was. Deleting works on a full disk.
//
// # On disk
//
// The file begins with the line "weft journal 1\n". A frame is
//
//	magic      4 bytes  "WJf1"
//	length     4 bytes  of what follows the checksum
//	checksum   4 bytes  CRC-32C of length and changes
//	changes             each: kind 1 byte (1 put, 2 delete), key 8 bytes, and of a put
//	                    length 4 bytes and the record
//
// with numbers in big-endian order. A put of a key that is there replaces its record and
// leaves its place in the order. The file is written anew, beside the old one and then
// renamed, when less than half of it is in use.
//
// # Concurrency
//
// All methods are safe for concurrent use. Two processes must not open one journal; whoever
// owns the directory sees to that with a lock. All records are in memory too.
package journal
