// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver for TPM 2.0 devices over virtio
 *
 * The device has one virtqueue. A request is one chain: the command, readable
 * by the device, then room for the response. The device answers one command at
 * a time and has no way to cancel one. See docs/virtio-tpm.md.
 *
 * The two buffers of the driver belong to the device from the time they are
 * queued until it has returned them, or has been reset. A command that was
 * given up (time, signal) changes nothing about that: the next one has to
 * wait.
 */
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/wait.h>

#include <virtio_tpm.h>

#include "tpm_core.h"

/*
 * The TPM core's durations are those of chips. The process behind this device
 * shares its host with others, so even the shortest command gets some seconds;
 * none gets more than the ceiling.
 */
#define TPM_VIRTIO_TIMEOUT_MIN	(10 * HZ)
#define TPM_VIRTIO_TIMEOUT_MAX	(300 * HZ)

/*
 * How long a command waits for the buffers that an abandoned one has left with
 * the device.
 */
#define TPM_VIRTIO_TIMEOUT_BUSY	(10 * HZ)

/* What the last commands get when the driver is to go. */
#define TPM_VIRTIO_TIMEOUT_REMOVE	(5 * HZ)

/*
 * How often a waiting command looks whether the device is still alive, and
 * whether it has returned the buffers without an interrupt. Costs an exit of
 * the guest.
 */
#define TPM_VIRTIO_LOOK	HZ

/*
 * How many contexts can wait for being flushed: more than what one process and
 * its space can have loaded.
 */
#define TPM_VIRTIO_STALE_MAX	16

/*
 * The status register of a device that is no more; no status has its reserved
 * bits.
 */
#define TPM_VIRTIO_STATUS_GONE	0xff

static unsigned int device_id = VIRTIO_TPM_DEVICE_ID;
module_param(device_id, uint, 0444);
MODULE_PARM_DESC(device_id, "virtio device id to bind to (default: "
		 __stringify(VIRTIO_TPM_DEVICE_ID) ")");

/**
 * struct tpm_virtio - one device
 * @vdev:	the virtio device
 * @chip:	the TPM core's side of it; its tpm_mutex serialises all commands
 * @vq:		the only queue; %NULL while the device is stopped
 * @lock:	protects the queue, @used, and the change of @lent
 * @wait:	where the one command in flight waits
 * @command:	what the device reads
 * @response:	what the device writes
 * @used:	how much of @response the device says it has written
 * @received:	length of the response to hand out, or an error (without TPM_CHIP_FLAG_SYNC only)
 * @stale:	contexts in the TPM that nobody wants any longer
 * @nr_stale:	how many
 * @remove_by:	when remove stops waiting, if @removing
 * @lent:	the buffers are the device's
 * @abandoned:	nobody waited for the response of the last command
 * @cancelled:	the one who waits shall not
 * @look:	the device has said that it has something to say
 * @dead:	the device needs a reset, or is gone
 * @removing:	the driver is to go
 */
struct tpm_virtio {
	struct virtio_device *vdev;
	struct tpm_chip *chip;
	struct virtqueue *vq;
	spinlock_t lock; /* see above */
	wait_queue_head_t wait;
	u8 *command;
	u8 *response;
	unsigned int used;
	int received;
	u32 stale[TPM_VIRTIO_STALE_MAX];
	unsigned int nr_stale;
	unsigned long remove_by;
	bool lent;
	bool abandoned;
	bool cancelled;
	bool look;
	bool dead;
	bool removing;
};

/* Takes the buffers back if the device is done with them. Any context. */
static void tpm_virtio_reap(struct tpm_virtio *tv, struct virtqueue *vq)
{
	unsigned long flags;
	unsigned int used;

	spin_lock_irqsave(&tv->lock, flags);
	if (virtqueue_get_buf(vq, &used)) {
		tv->used = used;
		/* pairs with tpm_virtio_returned() */
		smp_store_release(&tv->lent, false);
	}
	spin_unlock_irqrestore(&tv->lock, flags);
}

static bool tpm_virtio_returned(struct tpm_virtio *tv)
{
	/* pairs with tpm_virtio_reap() */
	return !smp_load_acquire(&tv->lent);
}

static void tpm_virtio_done(struct virtqueue *vq)
{
	struct tpm_virtio *tv = vq->vdev->priv;

	tpm_virtio_reap(tv, vq);
	wake_up(&tv->wait);
}

static void tpm_virtio_config_changed(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;

	WRITE_ONCE(tv->look, true);
	wake_up(&tv->wait);
}

static bool tpm_virtio_alive(struct tpm_virtio *tv)
{
	u8 status;

	if (!tv->dead) {
		status = tv->vdev->config->get_status(tv->vdev);
		status &= VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET;
		if (virtqueue_is_broken(tv->vq) || status != VIRTIO_CONFIG_S_DRIVER_OK) {
			dev_err(&tv->vdev->dev, "device has failed, unbind and bind the driver to reset it\n");
			tv->dead = true;
		}
	}
	return !tv->dead;
}

static bool tpm_virtio_woken(struct tpm_virtio *tv)
{
	return tpm_virtio_returned(tv) || READ_ONCE(tv->cancelled) || READ_ONCE(tv->look);
}

/* Waits until the buffers are back. */
static int tpm_virtio_wait(struct tpm_virtio *tv, unsigned long timeout)
{
	unsigned long stop = jiffies + timeout;
	unsigned long now, slice;
	long rc;

	for (;;) {
		now = jiffies;
		/* pairs with tpm_virtio_remove() */
		if (smp_load_acquire(&tv->removing) && time_after(stop, tv->remove_by))
			stop = tv->remove_by;
		slice = 0;
		if (time_before(now, stop))
			slice = min_t(unsigned long, stop - now, TPM_VIRTIO_LOOK);

		rc = wait_event_killable_timeout(tv->wait, tpm_virtio_woken(tv), slice);

		/* The interrupt may have been lost. */
		if (!tpm_virtio_returned(tv))
			tpm_virtio_reap(tv, tv->vq);
		if (tpm_virtio_returned(tv))
			return 0;
		if (rc < 0)
			return -EINTR;
		if (READ_ONCE(tv->cancelled))
			return -ECANCELED;

		WRITE_ONCE(tv->look, false);
		if (!tpm_virtio_alive(tv))
			return -ENODEV;
		if (!time_before(jiffies, stop))
			return -ETIME;
	}
}

static u32 tpm_virtio_ordinal(const u8 *message)
{
	return be32_to_cpu(((const struct tpm_header *)message)->ordinal);
}

/* The first handle, which is at no multiple of 4. */
static u32 tpm_virtio_handle(const u8 *message)
{
	__be32 handle;

	memcpy(&handle, message + VIRTIO_TPM_HEADER_SIZE, sizeof(handle));
	return be32_to_cpu(handle);
}

/*
 * Length of the response, or what is wrong with it: nothing that the device
 * says is taken for granted.
 */
static int tpm_virtio_length(struct tpm_virtio *tv)
{
	const struct tpm_header *header = (const struct tpm_header *)tv->response;

	if (tv->used < VIRTIO_TPM_HEADER_SIZE || tv->used > VIRTIO_TPM_MESSAGE_MAX)
		return -EIO;
	if (be32_to_cpu(header->length) != tv->used)
		return -EPROTO;
	return tv->used;
}

/*
 * The handle of what an abandoned command has loaded, which nobody knows of,
 * or 0.
 */
static u32 tpm_virtio_orphan(struct tpm_virtio *tv)
{
	const struct tpm_header *header = (const struct tpm_header *)tv->response;
	u16 code = tpm_virtio_ordinal(tv->command);
	int len = tpm_virtio_length(tv);
	u32 attrs, i;

	if (len < (int)(VIRTIO_TPM_HEADER_SIZE + sizeof(u32)) || header->return_code)
		return 0;
	for (i = 0; i < tv->chip->nr_commands; i++) {
		attrs = tv->chip->cc_attrs_tbl[i];
		if ((u16)attrs == code && attrs & BIT(TPM2_CC_ATTR_RHANDLE))
			return tpm_virtio_handle(tv->response);
	}
	return 0;
}

/* Has @handle flushed before the next command. */
static void tpm_virtio_put_off(struct tpm_virtio *tv, u32 handle)
{
	unsigned int i;

	for (i = 0; i < tv->nr_stale; i++)
		if (tv->stale[i] == handle)
			return;
	if (tv->nr_stale < ARRAY_SIZE(tv->stale))
		tv->stale[tv->nr_stale++] = handle;
}

/*
 * Makes sure that the buffers are ours, and that abandoned commands have left
 * nothing in the TPM.
 */
static int tpm_virtio_settle(struct tpm_virtio *tv, bool flush)
{
	u32 handle;
	int rc;

	if (!tv->vq || tv->dead)
		return -ENODEV;

	if (!tpm_virtio_returned(tv)) {
		rc = tpm_virtio_wait(tv, flush ? 0 : TPM_VIRTIO_TIMEOUT_BUSY);
		if (rc)
			return rc == -ETIME ? -EBUSY : rc;
	}

	if (tv->abandoned) {
		tv->abandoned = false;
		handle = tpm_virtio_orphan(tv);
		if (handle)
			tpm_virtio_put_off(tv, handle);
	}

	/* Each of these is a command that comes here, too. */
	while (!flush && tv->nr_stale && tpm_virtio_returned(tv))
		tpm2_flush_context(tv->chip, tv->stale[--tv->nr_stale]);

	/* The last flush may have been abandoned in its turn. */
	return tpm_virtio_returned(tv) ? 0 : -EBUSY;
}

static int tpm_virtio_queue(struct tpm_virtio *tv, size_t len)
{
	struct scatterlist command, response;
	struct scatterlist *chain[] = { &command, &response };
	unsigned long flags;
	bool notify = false;
	int rc;

	sg_init_one(&command, tv->command, len);
	sg_init_one(&response, tv->response, VIRTIO_TPM_MESSAGE_MAX);

	spin_lock_irqsave(&tv->lock, flags);
	rc = virtqueue_add_sgs(tv->vq, chain, 1, 1, tv, GFP_ATOMIC);
	if (!rc) {
		tv->lent = true;
		notify = virtqueue_kick_prepare(tv->vq);
	}
	spin_unlock_irqrestore(&tv->lock, flags);

	/* The queue is broken: then the buffers stay with the device. */
	if (notify && !virtqueue_notify(tv->vq))
		return -ENODEV;
	return rc;
}

/*
 * One command and its response, which is in @response then. Returns its
 * length. Under the chip's mutex.
 */
static int tpm_virtio_exchange(struct tpm_virtio *tv, const u8 *buf, size_t len)
{
	unsigned long timeout;
	bool flush;
	u32 ordinal;
	int rc;

	if (len < VIRTIO_TPM_HEADER_SIZE || len > VIRTIO_TPM_MESSAGE_MAX)
		return -EINVAL;

	ordinal = tpm_virtio_ordinal(buf);
	flush = ordinal == TPM2_CC_FLUSH_CONTEXT;
	WRITE_ONCE(tv->cancelled, false);
	rc = tpm_virtio_settle(tv, flush);
	if (rc) {
		/*
		 * The core cleans up by flushing, once, whatever comes of it,
		 * for a process that may have been killed.
		 */
		if (rc == -EBUSY && flush && len >= VIRTIO_TPM_HEADER_SIZE + sizeof(u32))
			tpm_virtio_put_off(tv, tpm_virtio_handle(buf));
		return rc;
	}

	memcpy(tv->command, buf, len);
	memset(tv->response, 0, VIRTIO_TPM_MESSAGE_MAX);
	rc = tpm_virtio_queue(tv, len);
	if (rc)
		return rc;

	timeout = clamp_t(unsigned long, tpm_calc_ordinal_duration(tv->chip, ordinal),
			  TPM_VIRTIO_TIMEOUT_MIN, TPM_VIRTIO_TIMEOUT_MAX);
	/*
	 * The core has no duration for these; they are quick, and a suspend, a
	 * reboot, or the end of a process waits for them.
	 */
	if (flush || ordinal == TPM2_CC_SHUTDOWN)
		timeout = TPM_VIRTIO_TIMEOUT_MIN;
	rc = tpm_virtio_wait(tv, timeout);
	if (rc) {
		tv->abandoned = true;
		return rc;
	}

	rc = tpm_virtio_length(tv);
	if (rc < 0)
		dev_err_ratelimited(&tv->vdev->dev, "malformed response, %u bytes\n", tv->used);
	return rc;
}

/* Copies the response out, if it fits. */
static int tpm_virtio_take(struct tpm_virtio *tv, u8 *buf, size_t size, int len)
{
	if (len < 0)
		return len;
	if (len > size)
		return -E2BIG;
	memcpy(buf, tv->response, len);
	return len;
}

static void tpm_virtio_cancel(struct tpm_chip *chip)
{
	struct tpm_virtio *tv = dev_get_drvdata(&chip->dev);

	WRITE_ONCE(tv->cancelled, true);
	wake_up(&tv->wait);
}

#ifdef HAVE_TPM_CHIP_FLAG_SYNC

#define TPM_VIRTIO_CHIP_FLAGS	(TPM_CHIP_FLAG_TPM2 | TPM_CHIP_FLAG_SYNC)

static int tpm_virtio_send(struct tpm_chip *chip, u8 *buf, size_t bufsiz, size_t cmd_len)
{
	struct tpm_virtio *tv = dev_get_drvdata(&chip->dev);

	return tpm_virtio_take(tv, buf, bufsiz, tpm_virtio_exchange(tv, buf, cmd_len));
}

static const struct tpm_class_ops tpm_virtio_ops = {
	.flags = TPM_OPS_AUTO_STARTUP,
	.send = tpm_virtio_send,
	.cancel = tpm_virtio_cancel,
};

#else

/*
 * The flag for an interrupt makes the core call recv() directly after send().
 */

#define TPM_VIRTIO_CHIP_FLAGS	(TPM_CHIP_FLAG_TPM2 | TPM_CHIP_FLAG_IRQ)

static int tpm_virtio_send(struct tpm_chip *chip, u8 *buf, size_t len)
{
	struct tpm_virtio *tv = dev_get_drvdata(&chip->dev);

	tv->received = tpm_virtio_exchange(tv, buf, len);
	return min(tv->received, 0);
}

static int tpm_virtio_recv(struct tpm_chip *chip, u8 *buf, size_t size)
{
	struct tpm_virtio *tv = dev_get_drvdata(&chip->dev);

	return tpm_virtio_take(tv, buf, size, tv->received);
}

static u8 tpm_virtio_status(struct tpm_chip *chip)
{
	return tpm_virtio_returned(dev_get_drvdata(&chip->dev));
}

static bool tpm_virtio_req_canceled(struct tpm_chip *chip, u8 status)
{
	struct tpm_virtio *tv = dev_get_drvdata(&chip->dev);

	return READ_ONCE(tv->cancelled);
}

static const struct tpm_class_ops tpm_virtio_ops = {
	.flags = TPM_OPS_AUTO_STARTUP,
	.req_complete_mask = 1,
	.req_complete_val = 1,
	.req_canceled = tpm_virtio_req_canceled,
	.status = tpm_virtio_status,
	.send = tpm_virtio_send,
	.recv = tpm_virtio_recv,
	.cancel = tpm_virtio_cancel,
};

#endif

/* Makes the queue. The caller makes the device ready. */
static int tpm_virtio_start(struct tpm_virtio *tv)
{
	struct virtqueue *vq;

	/*
	 * What a device that was never reset may still write to is lost for
	 * this one.
	 */
	if (!tpm_virtio_returned(tv))
		return -EIO;

	vq = virtio_find_single_vq(tv->vdev, tpm_virtio_done, "tpm");
	if (IS_ERR(vq))
		return PTR_ERR(vq);
	if (virtqueue_get_vring_size(vq) < VIRTIO_TPM_QUEUE_SIZE_MIN) {
		tv->vdev->config->del_vqs(tv->vdev);
		return -EINVAL;
	}

	tv->vq = vq;
	tv->dead = false;
	return 0;
}

/*
 * Takes the buffers back by a reset. Only a device that is gone cannot be
 * reset (it would be waited for without an end): whatever is behind it may
 * still have the buffers, and so they stay lent.
 */
static void tpm_virtio_stop(struct tpm_virtio *tv)
{
	struct virtio_device *vdev = tv->vdev;

	if (!tv->vq)
		return;

	if (vdev->config->get_status(vdev) != TPM_VIRTIO_STATUS_GONE) {
		virtio_reset_device(vdev);
		virtqueue_detach_unused_buf(tv->vq);
		tv->lent = false;
		tv->abandoned = false;
	}
	vdev->config->del_vqs(vdev);
	tv->vq = NULL;
}

static void tpm_virtio_free(struct tpm_virtio *tv)
{
	if (!tpm_virtio_returned(tv)) {
		dev_err(&tv->vdev->dev, "device is gone with a command in flight, its buffers are lost\n");
		return;
	}
	kfree_sensitive(tv->command);
	kfree_sensitive(tv->response);
}

static int tpm_virtio_probe(struct virtio_device *vdev)
{
	struct tpm_virtio *tv;
	int rc;

	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "device is a legacy one\n");
		return -ENODEV;
	}

	tv = devm_kzalloc(&vdev->dev, sizeof(*tv), GFP_KERNEL);
	if (!tv)
		return -ENOMEM;

	tv->vdev = vdev;
	vdev->priv = tv;
	spin_lock_init(&tv->lock);
	init_waitqueue_head(&tv->wait);

	/*
	 * Apart from each other and from all else: they are mapped for the
	 * device, in opposite directions.
	 */
	tv->command = kmalloc(VIRTIO_TPM_MESSAGE_MAX, GFP_KERNEL);
	tv->response = kmalloc(VIRTIO_TPM_MESSAGE_MAX, GFP_KERNEL);
	if (!tv->command || !tv->response) {
		rc = -ENOMEM;
		goto err_free;
	}

	rc = tpm_virtio_start(tv);
	if (rc)
		goto err_free;

	tv->chip = tpm_chip_alloc(&vdev->dev, &tpm_virtio_ops);
	if (IS_ERR(tv->chip)) {
		rc = PTR_ERR(tv->chip);
		goto err_stop;
	}
	tv->chip->flags |= TPM_VIRTIO_CHIP_FLAGS;
	dev_set_drvdata(&tv->chip->dev, tv);
	dev_set_drvdata(&vdev->dev, tv->chip);

	virtio_device_ready(vdev);

	rc = tpm_chip_register(tv->chip);
	if (rc)
		goto err_put;
	return 0;

err_put:
	tpm_virtio_stop(tv);
	put_device(&tv->chip->dev);
	goto err_free;
err_stop:
	tpm_virtio_stop(tv);
err_free:
	tpm_virtio_free(tv);
	return rc;
}

static void tpm_virtio_remove(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;

	tv->remove_by = jiffies + TPM_VIRTIO_TIMEOUT_REMOVE;
	/* pairs with tpm_virtio_wait() */
	smp_store_release(&tv->removing, true);

	/*
	 * Waits for the command in flight and sends the last ones. No more
	 * come when it returns.
	 */
	tpm_chip_unregister(tv->chip);
	tpm_virtio_stop(tv);
	put_device(&tv->chip->dev);
	tpm_virtio_free(tv);
}

/*
 * The TPM core has had its say. Nothing that the device still does may end up
 * in the memory of the next kernel, and nothing may wait for a device that is
 * gone, as the virtio core's own handler would.
 */
static void tpm_virtio_shutdown(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;

	mutex_lock(&tv->chip->tpm_mutex);
	tpm_virtio_stop(tv);
	mutex_unlock(&tv->chip->tpm_mutex);
}

#ifndef HAVE_VIRTIO_DRIVER_SHUTDOWN
static void tpm_virtio_device_shutdown(struct device *dev)
{
	tpm_virtio_shutdown(dev_to_virtio(dev));
}
#endif

#ifdef CONFIG_PM_SLEEP
/*
 * The mutex keeps out whoever in the kernel does not know that the system
 * sleeps.
 */
static int tpm_virtio_freeze(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;
	int rc;

	rc = tpm_pm_suspend(&vdev->dev);
	if (rc)
		return rc;

	mutex_lock(&tv->chip->tpm_mutex);
	tpm_virtio_stop(tv);
	mutex_unlock(&tv->chip->tpm_mutex);
	return 0;
}

static int tpm_virtio_restore(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;
	int rc;

	mutex_lock(&tv->chip->tpm_mutex);
	rc = tpm_virtio_start(tv);
	if (!rc)
		virtio_device_ready(vdev);
	mutex_unlock(&tv->chip->tpm_mutex);
	if (rc)
		return rc;

	return tpm_pm_resume(&vdev->dev);
}
#endif

static struct virtio_device_id tpm_virtio_ids[] = {
	{ VIRTIO_TPM_DEVICE_ID, VIRTIO_DEV_ANY_ID },
	{ },
};
MODULE_DEVICE_TABLE(virtio, tpm_virtio_ids);

static struct virtio_driver tpm_virtio_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = tpm_virtio_ids,
	.probe = tpm_virtio_probe,
	.remove = tpm_virtio_remove,
	.config_changed = tpm_virtio_config_changed,
#ifdef HAVE_VIRTIO_DRIVER_SHUTDOWN
	.shutdown = tpm_virtio_shutdown,
#else
	.driver.shutdown = tpm_virtio_device_shutdown,
#endif
#ifdef CONFIG_PM_SLEEP
	.freeze = tpm_virtio_freeze,
	.restore = tpm_virtio_restore,
#endif
};

static int __init tpm_virtio_init(void)
{
	if (!device_id || device_id >= VIRTIO_DEV_ANY_ID)
		return -EINVAL;
	tpm_virtio_ids[0].device = device_id;
	return register_virtio_driver(&tpm_virtio_driver);
}
module_init(tpm_virtio_init);

static void __exit tpm_virtio_exit(void)
{
	unregister_virtio_driver(&tpm_virtio_driver);
}
module_exit(tpm_virtio_exit);

MODULE_DESCRIPTION("TPM 2.0 over virtio");
MODULE_LICENSE("GPL");
